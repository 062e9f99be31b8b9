# ruff: noqa: E501 (the tables are wide)
"""Concepts, recipients and occasions in sellers' and in buyers' words, and the filler of product texts.

Hand-written. Columns of the concept tables:

    key | sellers' English | buyers' English | German | French | Spanish | family

Concepts of one facet and family are near substitutes of each other. As in the taxonomy, the first foreign phrase is
the sellers' and the last the buyers'.
"""

from dataclasses import dataclass

from uepp.data.marketplace.taxonomy import LANGUAGES, Words, by_language, split_phrases

FACETS = ("material", "colour", "style", "motif", "feature")

_CONCEPTS = {
    "material": """
silver | sterling silver, 925 silver | silver, real silver | silber | argent | plata | precious
gold | 14k gold, gold filled | gold, real gold | gold, echtgold | or | oro | precious
brass | brass, bronze | golden metal, old metal | messing | laiton | latón | metal
steel | stainless steel, wrought iron | metal, iron | edelstahl, eisen | acier, fer | acero, hierro | metal
ceramic | ceramic, stoneware | pottery, earthenware | keramik | céramique | cerámica | clay
porcelain | porcelain, bone china | china, fine china | porzellan | porcelaine | porcelana | clay
clay | polymer clay, terracotta | clay, modelling clay | ton, terrakotta | terre cuite, argile | arcilla, barro | clay
glass | blown glass, stained glass | glass | glas | verre | vidrio | glass
crystal | faceted crystal, rhinestone | sparkly, crystal | kristall | cristal | cristal | glass
resin | epoxy resin, resin | plastic, see through | kunstharz | résine | resina | plastic
acrylic | acrylic, plexiglass | perspex, clear plastic | acryl | acrylique | acrílico | plastic
oak | oak, solid wood | wooden, wood | eiche, holz | chêne, bois | roble, madera | wood
walnut | black walnut, hardwood | dark wood, walnut | walnuss, nussbaum | noyer | nogal | wood
bamboo | bamboo | sustainable wood, eco | bambus | bambou | bambú | wood
rattan | rattan, wicker | cane, straw | rattan | rotin | ratán, mimbre | wood
leather | full grain leather, cowhide | leather, real leather | leder, echtleder | cuir | cuero, piel | leather
veganleather | vegan leather, faux leather | fake leather, pleather | kunstleder | simili cuir | cuero vegano | leather
cotton | organic cotton, cotton | soft, natural fibre | baumwolle | coton | algodón | plantfibre
linen | linen, flax | washed linen, breathable | leinen | lin | lino | plantfibre
canvas | canvas, waxed canvas | sturdy cloth, sailcloth | segeltuch | toile | lona | plantfibre
wool | merino, alpaca | woollen, wool | wolle, merino | laine | lana merino | animalfibre
felt | felt, felted wool | felted | filz | feutre | fieltro | animalfibre
silk | mulberry silk, silk | silky, satin | seide | soie | seda | fine
velvet | velvet, velour | plush fabric, crushed velvet | samt | velours | terciopelo | fine
paper | cotton rag paper, cardstock | paper, card | papier, karton | papier | papel | paper
beeswax | beeswax | honey wax, natural wax | bienenwachs | cire d'abeille | cera de abeja | wax
soywax | soy wax, coconut wax | clean burning, soy | sojawachs | cire de soja | cera de soja | wax
stone | marble, soapstone | stone, stony | marmor, stein | marbre, pierre | mármol, piedra | mineral
pearl | freshwater pearl, mother of pearl | pearl | perlmutt, perle | nacre, perle | nácar, perla | mineral
""",
    "colour": """
red | crimson, scarlet | red | rot | rouge | rojo | red
burgundy | burgundy, oxblood | dark red, wine red | bordeaux, weinrot | bordeaux | granate | red
blush | blush, dusty rose | light pink, pink | altrosa, rosa | rose poudré, rose clair | rosa palo | pink
fuchsia | fuchsia, magenta | hot pink, bright pink | magenta, knallrosa | fuchsia | fucsia | pink
rust | terracotta orange, rust | burnt orange, orange | rostrot, orange | rouille, orange | óxido, naranja | orange
mustard | mustard, ochre | yellow, dark yellow | senfgelb, gelb | moutarde, jaune | mostaza, amarillo | yellow
sage | sage, eucalyptus green | light green, pale green | salbeigrün, hellgrün | vert sauge, vert clair | verde salvia | green
emerald | emerald, bottle green | green, dark green | smaragdgrün, grün | vert émeraude, vert | esmeralda, verde | green
olive | olive, moss green | army green, khaki | olivgrün | vert olive, kaki | verde oliva | green
navy | navy, indigo | dark blue, navy blue | marineblau, dunkelblau | bleu marine | azul marino | blue
sky | sky blue, powder blue | light blue, baby blue | himmelblau, hellblau | bleu ciel, bleu clair | celeste, azul claro | blue
teal | teal, petrol | turquoise, blue green | petrol, türkis | bleu canard, turquoise | turquesa | blue
lavender | lavender, lilac | light purple, purple | flieder, lila | lilas, violet clair | lila, lavanda | purple
plum | plum, aubergine | dark purple, violet | pflaume, dunkellila | prune, violet | ciruela, morado | purple
chocolate | chocolate brown, umber | brown | schokobraun, braun | marron | marrón | brown
camel | camel, sand | beige, tan | kamel, beige | camel, beige | camel, beige | brown
ivory | ivory, ecru | cream, off white | elfenbein, creme | ivoire, écru | marfil, crema | white
white | alabaster, snow white | white | weiß | blanc | blanco | white
black | jet black, onyx | black | schwarz | noir | negro | black
grey | slate, charcoal | gray, grey | anthrazit, grau | gris anthracite, gris | gris | black
rainbow | multicolor, rainbow | colourful, bright colors | bunt, regenbogen | multicolore, coloré | multicolor, colorido | multi
pastel | pastel, ombre | soft colors | pastell | pastel | tonos pastel | multi
""",
    "style": """
boho | boho, bohemian | hippie, festival | boho | bohème | bohemio | earthy
cottagecore | cottagecore, prairie | fairycore, country cottage | landhaus romantisch | champêtre | campestre | earthy
rustic | rustic, live edge | natural looking, cabin | rustikal | rustique | rústico | farm
farmhouse | farmhouse, shabby chic | country, distressed | landhaus | campagne | estilo granja | farm
minimalist | minimalist, dainty | simple, plain | minimalistisch, schlicht | minimaliste, épuré | minimalista, sencillo | clean
scandi | scandinavian, hygge | nordic, swedish style | skandinavisch, nordisch | scandinave | nórdico | clean
midcentury | mid century modern, mcm | 1950s, fifties | mid century, fünfziger | années cinquante | años cincuenta | retro
seventies | 70s retro, psychedelic | groovy, hippy era | siebziger | années soixante dix | setentero | retro
artdeco | art deco, gatsby | 1920s, great gatsby | zwanziger | années vingt | años veinte | ornate
victorian | victorian, edwardian | old fashioned, antique style | viktorianisch | victorien | victoriano | ornate
gothic | gothic, dark academia | goth, witchy | gotisch, düster | gothique | gótico | dark
steampunk | steampunk, dieselpunk | gears, clockwork | steampunk | steampunk | steampunk | dark
industrial | industrial, reclaimed | loft style, urban | industriell | industriel | industrial | urban
japanese | japandi, wabi sabi | japanese, zen | japanisch | japonais | japonés | asian
kawaii | kawaii, chibi | cute, adorable | niedlich, süß | mignon, kawaii | tierno, bonito | asian
coastal | coastal, nautical | beachy, seaside | maritim, strand | bord de mer | marinero, playa | sea
""",
    "motif": """
rose | rose, peony | flowers, roses | rosen | roses | rosas | flower
sunflower | sunflower, helianthus | sunflowers | sonnenblume | tournesol | girasol | flower
wildflower | wildflower, botanical | floral, meadow | wildblumen, blumen | fleurs sauvages, fleurs | flores silvestres, flores | flower
daisy | daisy, chamomile | daisies | gänseblümchen | marguerite | margarita | flower
cat | cat, feline | kitty, cats | katze | chat | gato | pet
dog | dog, canine | puppy, doggy | hund | chien | perro | pet
horse | horse, equestrian | pony, horses | pferd | cheval | caballo | farmanimal
chicken | chicken, rooster | hen, chickens | huhn | poule | gallina | farmanimal
fox | fox, vixen | foxes | fuchs | renard | zorro | woodland
bear | bear, grizzly | bears, teddy | bär | ours | oso | woodland
rabbit | rabbit, hare | bunny, bunnies | hase | lapin | conejo | woodland
owl | owl, barn owl | owls | eule | hibou | búho | bird
hummingbird | hummingbird, songbird | bird, birds | kolibri, vogel | colibri, oiseau | colibrí, pájaro | bird
whale | whale, orca | sea animal, whales | wal | baleine | ballena | sea
octopus | octopus, kraken | squid, tentacles | oktopus | pieuvre | pulpo | sea
shell | seashell, scallop | shells, ocean | muschel | coquillage | concha | sea
moon | moon, lunar | crescent, moon phases | mond | lune | luna | sky
star | star, constellation | stars, zodiac | stern | étoile | estrella | sky
sun | sun, sunburst | sunshine, sunny | sonne | soleil | sol | sky
mushroom | mushroom, toadstool | mushrooms, fungi | pilz | champignon | seta, hongo | forest
fern | fern, monstera | leaves, plant | farn, blätter | fougère, feuilles | helecho, hojas | forest
tree | tree of life, birch | tree, forest | lebensbaum, baum | arbre de vie, arbre | árbol de la vida, árbol | forest
mountain | mountain, alpine | mountains, hiking | berge, alpen | montagne | montaña | travel
map | world map, compass | travel, wanderlust | weltkarte, reise | carte du monde, voyage | mapamundi, viaje | travel
butterfly | butterfly, monarch | butterflies, moth | schmetterling | papillon | mariposa | insect
bee | honeybee, bumblebee | bee, bees | biene | abeille | abeja | insect
dragon | dragon, wyvern | dragons, mythical | drache | dragon | dragón | fantasy
unicorn | unicorn, pegasus | unicorns, magical | einhorn | licorne | unicornio | fantasy
fairy | fairy, pixie | fairies, faery | fee | fée | hada | fantasy
skull | skull, skeleton | skulls, bones | totenkopf | tête de mort | calavera | macabre
heart | heart, sweetheart | hearts, love | herz | coeur | corazón | symbol
initial | monogram, initial | letter, alphabet | buchstabe, initiale | initiale, lettre | inicial, letra | symbol
cross | celtic knot, cross | religious, christian | keltisch, kreuz | croix | cruz | symbol
stripes | striped, pinstripe | stripes, lines | gestreift, streifen | rayures | rayas | geometric
polka | polka dot, speckled | dots, spots | gepunktet, punkte | à pois | lunares | geometric
gingham | gingham, plaid check | checkered, squares | kariert, karo | vichy, carreaux | cuadros | geometric
lemon | lemon, citrus | lemons, fruit | zitrone | citron | limón | food
coffee | coffee, espresso | caffeine, coffee lover | kaffee | café | café | food
music | music note, treble clef | musical, musician | noten, musik | note de musique, musique | nota musical, música | hobby
books | bookish, literary | book lover, reading | bücher, lesen | littéraire, lecture | libros, lectura | hobby
bicycle | bicycle, cycling | bike, cyclist | fahrrad | vélo | bicicleta | hobby
football | football, soccer | sports, ball | fußball | football | fútbol | hobby
""",
    "feature": """
personalised | custom, engraved | personalized, with name | personalisiert, mit namen | personnalisé, avec prénom | personalizado, con nombre |
upcycled | upcycled, repurposed | recycled, eco friendly | upcycling, nachhaltig | recyclé, écologique | reciclado, ecológico |
miniature | miniature, dollhouse | tiny, mini | miniatur, klein | miniature, petit | miniatura, pequeño |
oversized | oversized, plus size | large, extra large | übergröße, groß | grande taille, grand | talla grande, grande |
set | set of four, bundle | matching set, multipack | im set, mehrteilig | lot de quatre, ensemble | juego de cuatro, conjunto |
digital | digital download, printable | instant, print at home | zum ausdrucken, sofort download | à imprimer, téléchargement | imprimible, descargable |
waterproof | waterproof, weatherproof | washable, rain proof | wasserdicht | imperméable | impermeable |
hypoallergenic | hypoallergenic, nickel free | sensitive skin, allergy friendly | hypoallergen, nickelfrei | hypoallergénique | hipoalergénico |
adjustable | adjustable, one size | fits all, resizable | verstellbar | réglable, ajustable | ajustable |
""",
}

# key | sellers' English | buyers' English | German | French | Spanish | groups (~ for a space) | weight
_RECIPIENTS = """
mother | gift for mom, mama | gift for mum, present for mother | für mama, geschenk für mama | pour maman, cadeau maman | para mamá, regalo para mamá | Necklaces Candles Drinkware Planters Soaps Bracelets Bedding Kitchen~Textiles Cards | 10
father | gift for dad, papa | present for father, gifts for daddy | für papa, geschenk für papa | pour papa, cadeau papa | para papá, regalo para papá | Drinkware Desk Bags Cooking~Tools Audio Skin~Care Brooches | 7
her | gift for her, girlfriend gift | present for wife, something for girlfriend | für sie, geschenk für freundin | pour elle, cadeau femme | para ella, regalo para novia | Necklaces Earrings Rings Bracelets Bags Candles Soaps Hair Fragrance | 9
him | gift for him, boyfriend gift | present for husband, mens gift | für ihn, geschenk für freund | pour lui, cadeau homme | para él, regalo para novio | Bags Drinkware Desk Skin~Care Games Audio Vintage~Fashion Brooches | 9
grandmother | gift for grandma, nana | present for granny | für oma, geschenk für oma | pour mamie, cadeau mamie | para abuela, regalo abuela | Planters Drinkware Bedding Decor~Objects Necklaces Vintage~Home | 3
grandfather | gift for grandpa, pops | present for granddad | für opa, geschenk für opa | pour papi, cadeau papi | para abuelo, regalo abuelo | Drinkware Garden~Decor Desk Vintage~Media Games | 2
baby | newborn gift, for baby | present for infant, new arrival | für babys, geschenk zur geburt | pour bébé, cadeau naissance | para bebé, regalo recién nacido | Baby~Toys Soft~Toys Bedding Lighting | 6
child | toddler gift, for kids | present for little girl, little boy | für kinder, geschenk für kinder | pour enfant, cadeau enfant | para niños, regalo para niños | Soft~Toys Learning~Toys Games Craft~Kits Tops | 8
teacher | teacher gift, for teachers | present for professor | für lehrer, lehrergeschenk | pour maîtresse, cadeau maîtresse | para profesora, regalo maestra | Drinkware Stationery Desk Candles Bags Pantry | 4
friend | best friend gift, bff | present for bestie | für freunde, geschenk beste freundin | pour une amie, cadeau copine | para amigas, regalo mejor amiga | Bracelets Candles Soaps Cards Drinkware Earrings | 5
bride | gift for bride, bridal | present for newlywed | für die braut, brautgeschenk | pour la mariée, cadeau mariée | para novias, regalo para la novia | Hair Necklaces Earrings Wedding~Paper Dresses | 3
couple | couples gift, mr and mrs | present for two | für paare, paargeschenk | pour couple, cadeau couple | para parejas, regalo pareja | Serveware Prints Drinkware Bedding Wedding~Paper | 3
petowner | dog mom, cat lady | pet lover present | für tierliebhaber | pour amoureux des animaux | para amantes de animales | Collars~&~Leashes Pet~Homes Pet~Play Drinkware Tops | 3
colleague | coworker gift, office gift | secret santa, boss present | für kollegen, kollegengeschenk | pour collègue, cadeau collègue | para compañeros, regalo oficina | Drinkware Desk Stationery Candles Pantry | 3
"""

# key | buyers' English | German | French | Spanish | month-day or "any" | recipient | groups | weight
_OCCASIONS = """
mothers_day | mothers day gift, mothers day, mothers day present | muttertag, muttertagsgeschenk | fête des mères, cadeau fête des mères | día de la madre, regalo día de la madre | 5-12 | mother | Necklaces Candles Drinkware Planters Soaps Bracelets Bedding Seeds~&~Plants Cards Hair | 14
fathers_day | fathers day gift, fathers day | vatertag, vatertagsgeschenk | fête des pères, cadeau fête des pères | día del padre, regalo día del padre | 6-16 | father | Drinkware Desk Bags Cooking~Tools Audio Skin~Care Brooches Games | 9
christmas | christmas gift, xmas present, stocking stuffer | weihnachtsgeschenk, weihnachten | cadeau de noël, noël | regalo de navidad, navidad | 12-25 | | Candles Knit~Accessories Pantry Games Soft~Toys Cards Decor~Objects Drinkware Bedding | 22
valentines | valentines gift, valentines day, romantic present | valentinstag, geschenk valentinstag | saint valentin, cadeau saint valentin | san valentín, regalo san valentín | 2-14 | her | Necklaces Rings Earrings Candles Pantry Cards Prints | 10
easter | easter, easter basket | ostern, ostergeschenk | pâques, cadeau de pâques | pascua, regalo de pascua | 4-5 | child | Soft~Toys Pantry Party~Decor Seeds~&~Plants Baby~Toys | 6
halloween | halloween, spooky season | halloween, gruselig | halloween, fête halloween | halloween, noche de brujas | 10-31 | | Party~Decor Candles Brooches Decor~Objects Tops Vintage~Fashion | 9
birthday | birthday gift, bday present, birthday | geburtstagsgeschenk, geburtstag | cadeau anniversaire, anniversaire | regalo de cumpleaños, cumpleaños | any | | Necklaces Candles Drinkware Games Bags Soaps Cards Party~Decor Soft~Toys Earrings | 13
wedding | wedding gift, wedding | hochzeitsgeschenk, hochzeit | cadeau de mariage, mariage | regalo de boda, boda | 7-1 | couple | Wedding~Paper Serveware Rings Hair Dresses Party~Decor Drinkware | 10
housewarming | housewarming gift, new home present | einzugsgeschenk, neues zuhause | cadeau crémaillère, nouvelle maison | regalo casa nueva, inauguración | any | | Candles Planters Serveware Kitchen~Textiles Decor~Objects Prints Lighting | 7
babyshower | baby shower, expecting mom | babyparty, schwangerschaft | fête prénatale, future maman | fiesta premamá, embarazo | any | baby | Baby~Toys Soft~Toys Party~Decor Bedding Cards | 6
graduation | graduation gift, class of, grad party | abschlussgeschenk, abitur | remise de diplôme, cadeau diplôme | graduación, regalo graduación | 6-1 | | Necklaces Stationery Bags Cards Desk Party~Decor | 5
anniversary | anniversary gift, one year together | jahrestag, hochzeitstag | anniversaire de mariage, cadeau couple noces | aniversario, regalo aniversario | any | couple | Rings Necklaces Prints Drinkware Paintings Cards | 7
thankyou | thank you gift, appreciation | dankeschön, als dankeschön | cadeau de remerciement, merci | regalo de agradecimiento, gracias | any | teacher | Candles Soaps Cards Drinkware Pantry Stationery | 5
selfcare | self care, treat yourself, pamper | wellness, auszeit | prendre soin de soi, bien être | autocuidado, mimarse | any | her | Soaps Skin~Care Candles Fragrance Bedding Hair | 5
"""

BOILERPLATE = {
    "en": (
        "Each piece is made to order in our small studio.",
        "Please allow three to five days before dispatch.",
        "Colours may look different on your screen.",
        "Message us with any question, we love to help!",
        "Follow our shop for news and a discount on your next order.",
        "Ships worldwide in plastic free packaging.",
        "Returns accepted within fourteen days.",
        "Makes a thoughtful present for someone you love.",
        "Thank you for supporting an independent maker.",
    ),
    "de": (
        "Jedes Stück wird in unserer kleinen Werkstatt gefertigt.",
        "Bitte rechne mit drei bis fünf Tagen bis zum Versand.",
        "Farben können auf deinem Bildschirm abweichen.",
        "Bei Fragen schreib uns gerne eine Nachricht.",
        "Versand plastikfrei verpackt.",
    ),
    "fr": (
        "Chaque pièce est fabriquée dans notre petit atelier.",
        "Comptez trois à cinq jours avant l'expédition.",
        "Les couleurs peuvent varier selon votre écran.",
        "Écrivez-nous pour toute question.",
        "Emballage sans plastique.",
    ),
    "es": (
        "Cada pieza se hace en nuestro pequeño taller.",
        "El envío tarda de tres a cinco días.",
        "Los colores pueden variar según la pantalla.",
        "Escríbenos si tienes alguna pregunta.",
        "Embalaje sin plástico.",
    ),
}
SELLER_FILLER = {
    "en": ("handmade", "unique", "artisan", "one of a kind", "made to order", "small batch", "trending now"),
    "de": ("handgemacht", "einzigartig", "handarbeit", "unikat"),
    "fr": ("fait main", "artisanal", "pièce unique"),
    "es": ("hecho a mano", "artesanal", "único"),
}
BUYER_FILLER = {
    "en": ("handmade", "cheap", "unique", "best", "online", "near me", "uk", "for sale", "nice", "free shipping"),
    "de": ("günstig", "schön", "besonders", "kaufen"),
    "fr": ("pas cher", "original", "joli", "acheter"),
    "es": ("barato", "original", "bonito", "comprar"),
}


@dataclass(frozen=True)
class Concept(Words):
    """A value of a facet; `family` names its near substitutes ("" for none)."""

    key: str
    facet: str
    family: str


@dataclass(frozen=True)
class Purpose(Words):
    """A recipient or an occasion: phrases, and the groups it is shopped in, the first ones most.

    `day` is (month, day) of a seasonal occasion; `recipient` is the key of an occasion's usual recipient.
    """

    key: str
    groups: tuple[str, ...]
    weight: float
    day: tuple[int, int] | None = None
    recipient: str = ""


def _rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def _read_concepts() -> tuple[Concept, ...]:
    concepts = []
    for facet in FACETS:
        for key, sellers, buyers, german, french, spanish, family in _rows(_CONCEPTS[facet]):
            words = by_language(sellers, buyers, [german, french, spanish])
            concepts.append(Concept(*words, key, facet, family))
    return tuple(concepts)


def _group_names(cell: str) -> tuple[str, ...]:
    return tuple(name.replace("~", " ") for name in cell.split())


def _read_recipients() -> tuple[Purpose, ...]:
    return tuple(
        Purpose(*by_language(row[1], row[2], row[3:6]), row[0], _group_names(row[6]), float(row[7]))
        for row in _rows(_RECIPIENTS)
    )


def _read_occasions() -> tuple[Purpose, ...]:
    occasions = []
    for key, english, german, french, spanish, date, recipient, groups, weight in _rows(_OCCASIONS):
        phrases = dict(zip(LANGUAGES, map(split_phrases, (english, german, french, spanish)), strict=True))
        day = None if date == "any" else (int(date.split("-")[0]), int(date.split("-")[1]))
        occasions.append(Purpose(phrases, phrases, key, _group_names(groups), float(weight), day, recipient))
    return tuple(occasions)


CONCEPTS = _read_concepts()
RECIPIENTS = _read_recipients()
OCCASIONS = _read_occasions()
