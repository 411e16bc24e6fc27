"""Lists English words that tell what a change between two prompts asks for.

Words of other languages are in none of the lists. Changes are then read by their place alone.
"""

from __future__ import annotations

ARTICLES = frozenset("a an the some this that these those its his her their".split())
NUMBERS = frozenset("no one two three four five six seven eight nine ten several many few".split())
EMPTY = frozenset("empty blank bare plain deserted".split())
JOINING = frozenset("and or with without wearing holding carrying having that which who".split())
PREPOSITIONS = frozenset(
    "on in at over under above below across along through near beside behind before against around "
    "into onto by from of to inside outside between among past toward towards up down".split()
)
VERBS = frozenset("is are was were be".split())
COLOURS = frozenset(
    "red blue green yellow orange purple pink brown black white grey gray golden gold silver cyan "
    "magenta violet turquoise beige crimson scarlet teal navy maroon".split()
)
MATERIALS = frozenset(
    "wooden wood stone marble metal metallic steel iron bronze copper glass crystal plastic paper "
    "origami clay ceramic porcelain leather velvet silk wool woollen knitted lego ice chocolate "
    "rubber concrete brick gold golden silver jade bamboo cardboard".split()
)
ADJECTIVES = frozenset(
    "big small large little tiny huge giant old young happy sad angry fluffy furry shiny dirty "
    "clean wet dry striped spotted fat thin tall short long dark bright".split()
)
STYLES = frozenset(
    "style painting watercolor watercolour sketch drawing anime cartoon comic pencil oil pixel "
    "impressionist cubist cyberpunk ghibli pixar charcoal mosaic cinematic vintage sepia".split()
)
PLACES = frozenset(
    "grass lawn snow sand water road street beach forest wood woods desert sky ocean sea lake "
    "river city town mountain mountains hill hills field meadow garden park jungle room kitchen "
    "floor ground pavement sidewalk track bridge space moon mars ice mud rocks rock leaves stage "
    "background highway coast shore savanna pool wall carpet studio".split()
)
LEADING = ARTICLES | NUMBERS | EMPTY | JOINING | PREPOSITIONS | VERBS  # to a noun
ENDING = JOINING | PREPOSITIONS | VERBS  # after which a noun phrase is over
