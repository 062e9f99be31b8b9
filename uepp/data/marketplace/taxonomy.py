# ruff: noqa: E501 (the table is wide)
"""The category tree: departments, groups and leaves, each with sellers' and with buyers' phrases.

Hand-written. A line `# …` opens a department, `## …` a group, every other line is a leaf:

    # name | English buyers' phrases | German | French | Spanish
    ## name | English buyers' phrases | German | French | Spanish | median price | materials | season
    name | sellers' English | buyers' English | German | French | Spanish

In the German, French and Spanish columns the first phrase is the sellers' and the last the buyers'.
"""

from dataclasses import dataclass

LANGUAGES = ("en", "de", "fr", "es")

_TABLE = """
# Home & Living | home decor, homeware | wohndeko | déco maison | decoración hogar
## Lighting | lights, lamps | lampen | luminaires | lámparas | 58 | glass brass bamboo rattan ceramic paper |
Table Lamps | table lamp, desk lamp | bedside light, reading light | tischlampe, nachttischlampe | lampe de table, lampe de chevet | lámpara de mesa
Pendant Lights | pendant lamp, chandelier | ceiling light, hanging light | hängelampe, deckenlampe | suspension, lustre | lámpara colgante
Wall Sconces | wall sconce, sconce lamp | wall light | wandleuchte, wandlampe | applique murale | aplique de pared
Night Lights | night light, led nightlight | kids room light, glow lamp | nachtlicht | veilleuse | luz nocturna
## Bedding | bedroom textiles | bettwaren | linge de lit | ropa de cama | 64 | cotton linen wool velvet silk |
Quilts | quilt, patchwork quilt | bedspread, bed cover | steppdecke, tagesdecke | courtepointe, couvre lit | colcha
Duvet Covers | duvet cover, comforter set | bedding set, doona cover | bettbezug, bettwäsche | housse de couette | funda nórdica
Throw Blankets | throw blanket, knitted throw | cosy blanket, sofa blanket | wolldecke, kuscheldecke | plaid, couverture | manta
Throw Pillows | throw pillow, pillow sham | cushion cover, couch cushion | kissenbezug, sofakissen | coussin, housse de coussin | cojín
## Storage | organizers | aufbewahrung | rangement | organizadores | 34 | oak walnut rattan bamboo steel cotton |
Wall Shelves | floating shelf, wall shelf | bookshelf, ledge | wandregal | étagère murale | estante de pared
Baskets | woven basket, hamper | laundry bin, toy storage | flechtkorb, wäschekorb | panier tressé, panier | cesta
Coat Hooks | coat rack, wall hook | key holder, entryway hanger | garderobenhaken | portemanteau | perchero
Jewelry Boxes | trinket box, jewelry organizer | ring holder, keepsake case | schmuckkästchen | boîte à bijoux | joyero
## Decor Objects | ornaments, knick knacks | dekoration | objets déco | adornos | 29 | ceramic resin brass glass oak stone |
Vases | bud vase, flower vase | pot for flowers | blumenvase, vase | vase, soliflore | jarrón, florero
Candle Holders | candlestick, candelabra | tealight stand, taper holder | kerzenständer | bougeoir | candelabro, portavelas
Figurines | figurine, statuette | small statue, sculpture | figur, statue | figurine, statue | figurita
Wall Clocks | wall clock, silent clock | kitchen clock, timepiece | wanduhr | horloge murale | reloj de pared
Mirrors | wall mirror, vanity mirror | looking glass, makeup mirror | wandspiegel, spiegel | miroir mural, miroir | espejo
## Candles | scented candles | kerzen | bougies | velas | 19 | soywax beeswax glass | winter
Jar Candles | jar candle, container candle | home fragrance, smelly candle | duftkerze | bougie parfumée | vela aromática
Pillar Candles | pillar candle, sculpted candle | decorative candle | stumpenkerze, dekokerze | bougie pilier | vela decorativa
Wax Melts | wax melts, tart melts | room scent, snap bars | duftwachs | fondants parfumés | cera perfumada

# Jewelry | jewellery, jewelry | schmuck | bijoux | joyas
## Necklaces | necklaces, neck chain | halsketten | colliers | collares | 42 | silver gold brass pearl glass crystal |
Pendant Necklaces | pendant necklace, charm pendant | necklace, chain with charm | kette mit anhänger, halskette | collier pendentif, collier | collar con colgante, collar
Chokers | choker, collar necklace | tight necklace, short necklace | choker, enge kette | ras de cou | gargantilla
Lockets | locket, keepsake locket | photo necklace, picture pendant | medaillon, fotokette | médaillon, collier photo | guardapelo
Beaded Necklaces | beaded necklace, strand necklace | bead chain | perlenkette | sautoir, collier de perles | collar de cuentas
## Earrings | earrings | ohrringe | boucles d'oreilles | pendientes | 28 | silver gold brass resin clay crystal |
Stud Earrings | stud earrings, post earrings | small earrings, ear pins | ohrstecker | puces d'oreilles | aretes, pendientes pequeños
Hoop Earrings | hoops, huggie hoops | round earrings, ring earrings | creolen | créoles | aros
Dangle Earrings | dangle earrings, drop earrings | long earrings, statement earrings | ohrhänger, lange ohrringe | pendants d'oreilles | pendientes largos
Ear Cuffs | ear cuff, ear climber | no piercing earring | ohrklemme | bijou d'oreille | ear cuff sin agujero
## Rings | rings | ringe | bagues | anillos | 75 | silver gold walnut crystal pearl |
Engagement Rings | solitaire ring, moissanite ring | engagement ring, proposal ring | verlobungsring | bague de fiançailles | anillo de compromiso
Wedding Bands | wedding band, eternity band | wedding ring, marriage ring | trauring, ehering | alliance | alianza de boda
Signet Rings | signet ring, seal ring | pinky ring, mens ring | siegelring | chevalière | anillo de sello
Stacking Rings | stacking ring, dainty band | thin ring, midi ring | stapelring, dünner ring | bague fine | anillo fino
## Bracelets | bracelets | armbänder | bracelets | pulseras | 31 | silver gold leather cotton crystal stone |
Charm Bracelets | charm bracelet, bangle charm | bracelet with pendants | bettelarmband | bracelet à breloques | pulsera de dijes
Bangles | bangle, cuff bracelet | arm ring | armreif | jonc, bracelet rigide | brazalete
Friendship Bracelets | woven bracelet, macrame bracelet | friendship bracelet, string bracelet | freundschaftsarmband | bracelet brésilien | pulsera de la amistad
Anklets | anklet, ankle chain | foot bracelet, beach jewellery | fußkettchen | bracelet de cheville | tobillera
## Brooches | pins and brooches | broschen | broches | broches | 18 | brass silver felt steel resin |
Enamel Pins | enamel pin, lapel pin | badge, backpack pin | anstecker | pin's émaillé | pin esmaltado
Brooches | brooch, scarf pin | dress pin, fancy pin | brosche | broche | broche
Cufflinks | cufflinks, tie clip | shirt buttons for suit | manschettenknöpfe | boutons de manchette | gemelos

# Clothing | clothes, outfits | kleidung | vêtements | ropa
## Tops | tops, shirts | oberteile | hauts | camisetas | 33 | cotton linen wool silk |
Graphic Tees | graphic tee, screen print shirt | tshirt, funny shirt | bedrucktes shirt, tshirt | tee shirt imprimé | camiseta estampada
Sweatshirts | crewneck sweatshirt, hoodie | jumper, pullover | sweatshirt, kapuzenpulli | sweat à capuche | sudadera
Cardigans | cardigan, knit cardigan | button up knit, woolly jacket | strickjacke | gilet, cardigan | cárdigan, chaqueta de punto
Blouses | blouse, peasant top | dressy shirt, loose top | bluse | chemisier, blouse | blusa
## Dresses | dresses, gowns | kleider | robes | vestidos | 88 | cotton linen silk velvet | summer
Midi Dresses | midi dress, wrap dress | summer dress, sundress | sommerkleid | robe d'été, robe midi | vestido de verano
Maxi Dresses | maxi dress, kaftan | long dress, flowy gown | maxikleid, langes kleid | robe longue | vestido largo
Wedding Dresses | bridal gown, wedding dress | dress for bride, white gown | brautkleid | robe de mariée | vestido de novia
Slip Dresses | slip dress, chemise | nightgown, satin dress | unterkleid | nuisette | camisón
## Bottoms | trousers, pants | hosen | pantalons | pantalones | 49 | cotton linen wool |
Skirts | circle skirt, pleated skirt | skirt, twirly bottoms | rock, faltenrock | jupe | falda
Wide Leg Pants | wide leg trousers, palazzo | baggy pants, loose trousers | weite hose | pantalon large | pantalón ancho
Leggings | leggings, yoga pants | stretchy tights, workout bottoms | leggings | legging | mallas
Overalls | dungarees, overalls | jumpsuit, bib pants | latzhose | salopette | peto
## Knit Accessories | winter accessories | strickwaren | accessoires d'hiver | accesorios de invierno | 26 | wool cotton silk felt | winter
Beanies | beanie, knit cap | winter hat, woolly hat | strickmütze, wintermütze | bonnet | gorro de lana
Scarves | scarf, infinity cowl | neck warmer, wrap | schal, tuch | écharpe, foulard | bufanda
Mittens | mittens, fingerless gloves | hand warmers, gloves | fäustlinge, handschuhe | moufles, gants | guantes, mitones
Socks | crew socks, knitted socks | stockings, warm feet | wollsocken, socken | chaussettes | calcetines
## Bags | bags, purses | taschen | sacs | bolsos | 52 | leather veganleather canvas cotton |
Tote Bags | tote bag, market tote | shopping bag, carryall | stoffbeutel, einkaufstasche | cabas, tote bag | bolsa de tela
Crossbody Bags | crossbody bag, satchel | shoulder purse, handbag | umhängetasche, handtasche | sac bandoulière | bandolera, bolso
Backpacks | backpack, rucksack | school bag, knapsack | rucksack | sac à dos | mochila
Wallets | bifold wallet, card holder | billfold, purse for cards | geldbörse, portemonnaie | portefeuille | cartera
Makeup Bags | cosmetic bag, zipper pouch | toiletry case, wash bag | kosmetiktasche | trousse de toilette | neceser
## Footwear | shoes | schuhe | chaussures | zapatos | 71 | leather veganleather felt wool |
Sandals | strappy sandals, huaraches | summer shoes, open toe | sandalen | sandales | sandalias
Slippers | slippers, felt clogs | house shoes, indoor shoes | hausschuhe, pantoffeln | chaussons, pantoufles | zapatillas de casa
Boots | ankle boots, chelsea boots | booties, winter shoes | stiefel, stiefeletten | bottines | botines

# Toys & Games | toys, playthings | spielzeug | jouets | juguetes
## Soft Toys | stuffies, plush | kuscheltiere | peluches | peluches | 27 | cotton wool felt velvet | xmas
Stuffed Animals | stuffed animal, plushie | soft toy, cuddly toy | plüschtier, kuscheltier | peluche, doudou | peluche
Dolls | rag doll, waldorf doll | dolly, baby doll | puppe, stoffpuppe | poupée | muñeca
Hand Puppets | hand puppet, finger puppets | puppet show, glove puppet | handpuppe | marionnette | títere
Crochet Toys | amigurumi, crochet animal | yarn toy, knitted animal | häkeltier | amigurumi, animal au crochet | amigurumi, muñeco tejido
## Learning Toys | educational toys | lernspielzeug | jouets éducatifs | juguetes educativos | 32 | oak bamboo felt paper cotton | xmas
Wooden Puzzles | wooden puzzle, peg puzzle | jigsaw, shape board | holzpuzzle | puzzle en bois | rompecabezas
Building Blocks | stacking blocks, building set | bricks, construction toy | bauklötze | cubes en bois, blocs | bloques de construcción
Busy Boards | busy board, quiet book | sensory toy, montessori toy | aktivitätsbrett | planche d'activités | tablero sensorial
Play Kitchens | pretend food set, play kitchen | toy food, kids cooking | spielküche | dînette | cocinita de juguete
## Games | board games | spiele | jeux de société | juegos de mesa | 38 | oak paper acrylic resin | xmas
Board Games | tabletop game, strategy game | family game night | brettspiel | jeu de société | juego de mesa
Dice | dice set, polyhedral dice | dnd accessories, d20 | würfelset | dés polyédriques | dados
Chess Sets | chess set, chessmen | chess board, king and queen game | schachspiel | jeu d'échecs | ajedrez
Playing Cards | playing cards, tarot deck | oracle cards, poker deck | spielkarten, tarot | cartes à jouer, tarot | baraja, tarot
## Baby Toys | infant toys | babyspielzeug | jouets bébé | juguetes bebé | 21 | cotton bamboo oak wool |
Rattles | rattle, grasping toy | baby shaker, first toy | rassel | hochet | sonajero
Teethers | teether, teething ring | chew toy for infant | beißring | anneau de dentition | mordedor
Crib Mobiles | crib mobile, nursery mobile | hanging cot decoration | babymobile | mobile bébé | móvil de cuna

# Art & Collectibles | art, artwork | kunst | art | arte
## Prints | wall art, posters | kunstdrucke | affiches | láminas | 24 | paper canvas |
Art Prints | giclee print, art print | poster, picture for wall | kunstdruck, poster | affiche, impression d'art | lámina, póster
Photography Prints | fine art photography, photo print | landscape photo, nature picture | fotodruck | photographie d'art | fotografía artística
Quote Prints | typography print, lettering print | quote poster, saying for wall | spruchbild | affiche citation | lámina con frase
Map Prints | city map print, vintage map | town plan poster, street map | stadtplan druck | carte de ville | mapa de ciudad
## Paintings | paintings | gemälde | peintures | pinturas | 145 | canvas paper oak |
Oil Paintings | oil painting, impasto canvas | original artwork, hand painted picture | ölgemälde, ölbild | peinture à l'huile | cuadro al óleo
Watercolors | watercolor painting, aquarelle | water colour picture | aquarell | aquarelle | acuarela
Abstract Paintings | abstract painting, modern canvas | big wall picture, contemporary art | abstraktes bild | tableau abstrait | cuadro abstracto
Portraits | portrait commission, family illustration | drawing from photo, picture of us | portrait zeichnung | portrait illustré | retrato ilustrado
## Sculpture | sculptures | skulpturen | sculptures | esculturas | 96 | stone brass clay oak steel |
Metal Sculptures | metal sculpture, welded art | iron statue, yard art | metallskulptur | sculpture en métal | escultura de metal
Wood Carvings | wood carving, carved wood | wooden statue, whittled figure | holzschnitzerei | sculpture sur bois | talla de madera
Pottery Sculptures | ceramic sculpture, art pottery | clay statue | keramikskulptur | sculpture céramique | escultura cerámica
## Collectibles | memorabilia | sammlerstücke | objets de collection | coleccionables | 36 | paper brass steel ceramic |
Stickers | vinyl sticker, sticker sheet | decals, laptop stickers | aufkleber | autocollant | pegatinas
Postcards | postcard set, vintage postcard | mail cards | postkarten | cartes postales | postales
Coins and Tokens | challenge coin, medallion | old money, lucky coin | münze | pièce de collection | moneda
Music Boxes | music box, hand crank box | tune box, melody box | spieluhr | boîte à musique | caja de música

# Craft Supplies | craft supplies, making supplies | bastelbedarf | loisirs créatifs | manualidades
## Yarn & Fabric | fabrics and wool | stoffe und garne | tissus et laines | telas y lanas | 17 | wool cotton linen silk felt |
Yarn | hand dyed yarn, skein | wool for knitting, knitting wool | handgefärbte wolle, strickgarn | laine à tricoter | lana, ovillo
Fabric | quilting fabric, fat quarter | cloth by the metre, material for sewing | baumwollstoff, stoff | tissu au mètre, tissu | tela
Ribbons | grosgrain ribbon, lace trim | bow material, edging | schleifenband | ruban, dentelle | cinta
Felt Sheets | felt sheets, wool felt | craft felt | filzplatten | feuilles de feutrine | fieltro
## Beads | beads and gems | perlen | perles | abalorios | 12 | glass crystal stone resin oak |
Gemstone Beads | gemstone beads, semi precious strand | stones for bracelets | edelsteinperlen | perles en pierre | cuentas de piedra
Seed Beads | seed beads, delica | tiny beads, small glass balls | rocailles | perles de rocaille | mostacilla
Charms | metal charm, pendant finding | little trinkets for bracelets | anhänger | breloque | dije
Cabochons | cabochon, flatback | glue on gems | cabochon | cabochon | cabujón
## Patterns | patterns and tutorials | anleitungen | patrons | patrones | 8 | paper |
Sewing Patterns | sewing pattern, pdf pattern | how to sew, dressmaking template | schnittmuster | patron de couture | patrón de costura
Knitting Patterns | knitting pattern, knit chart | how to knit | strickanleitung | patron tricot | patrón de punto
Cross Stitch | cross stitch chart, embroidery pattern | needlework design, stitching picture | stickvorlage | grille point de croix | punto de cruz
SVG Files | svg cut file, cricut design | cutting machine file, clip art | plotterdatei | fichier svg | archivo svg
## Craft Kits | diy kits | bastelsets | kits créatifs | kits | 31 | cotton wool paper clay soywax | xmas
Embroidery Kits | embroidery kit, punch needle kit | sewing starter set | stickset | kit broderie | kit de bordado
Candle Making Kits | candle making kit | make your own candles | kerzen selber machen | kit bougie | kit de velas
Paint by Numbers | paint by numbers, painting kit | number painting, colour in canvas | malen nach zahlen | peinture par numéros | pintar por números
## Tools | crafting tools | werkzeug | outils | herramientas | 23 | steel oak bamboo brass |
Knitting Needles | circular needles, knitting needles | knit sticks | stricknadeln | aiguilles à tricoter | agujas de tejer
Rubber Stamps | rubber stamp, stamp set | ink stamper, return address seal | stempel | tampon encreur | sello
Molds | silicone mold, resin mould | shape form, casting tray | silikonform | moule silicone | molde de silicona

# Kitchen & Dining | kitchenware, kitchen stuff | küche | cuisine | cocina
## Drinkware | cups and glasses | trinkgefäße | tasses et verres | vasos y tazas | 22 | ceramic porcelain glass steel clay |
Mugs | stoneware mug, pottery mug | coffee cup, tea cup | keramikbecher, kaffeetasse | mug, tasse | taza
Tumblers | insulated tumbler, travel mug | to go cup, thermos | thermobecher | gobelet isotherme | termo
Wine Glasses | stemless wine glass, goblet | drinking glasses, barware | weinglas | verre à vin | copa de vino
Teapots | teapot, tea set | tea brewing, kettle | teekanne | théière | tetera
Beer Steins | beer stein, pint glass | lager mug, tankard | bierkrug | chope de bière | jarra de cerveza
## Serveware | serving dishes | servierwaren | service de table | vajilla | 37 | ceramic oak walnut porcelain stone |
Cutting Boards | charcuterie board, cutting board | chopping block, cheese board | schneidebrett, käsebrett | planche à découper | tabla de cortar
Bowls | serving bowl, ramen bowl | salad dish, cereal bowl | schüssel, schale | saladier, bol | cuenco, bol
Plates | dinner plate, dessert plate | dishes, crockery | teller | assiette | plato
Trays | serving tray, ottoman tray | breakfast in bed board, platter | tablett | plateau | bandeja
## Kitchen Textiles | kitchen linens | küchentextilien | linge de cuisine | textiles de cocina | 16 | cotton linen |
Tea Towels | tea towel, flour sack towel | dish cloth, kitchen towel | geschirrtuch | torchon | paño de cocina
Aprons | apron, pinafore | cooking smock, baking cover | küchenschürze, schürze | tablier | delantal
Table Runners | table runner, tablecloth | dining table cover | tischläufer, tischdecke | chemin de table, nappe | camino de mesa, mantel
Oven Mitts | oven mitts, pot holder | heat gloves, hot pads | topflappen | manique, gant de cuisine | manopla de horno
## Cooking Tools | utensils | küchenhelfer | ustensiles | utensilios | 25 | steel oak bamboo brass |
Wooden Spoons | wooden spoon, spurtle | stirring utensil, spatula | holzlöffel, kochlöffel | cuillère en bois | cuchara de madera
Rolling Pins | rolling pin, embossed roller | dough roller, pastry tool | nudelholz | rouleau à pâtisserie | rodillo
Cookie Cutters | cookie cutter, fondant cutter | biscuit shapes | ausstechform | emporte pièce | cortador de galletas
Knives | chef knife, damascus knife | kitchen blade | küchenmesser | couteau de cuisine | cuchillo
## Pantry | food and treats | lebensmittel | épicerie | despensa | 18 | glass paper | xmas
Spice Jars | spice jar, spice rack | seasoning containers, herb pots | gewürzglas | pot à épices | tarro de especias
Tea Blends | loose leaf tea, herbal blend | tea sampler, infusion | kräutertee | thé en vrac | té de hierbas
Chocolates | truffles, artisan chocolate | sweets, candy box | pralinen, schokolade | chocolats | bombones

# Garden & Outdoor | garden, backyard | garten | jardin | jardín
## Planters | plant pots | pflanzgefäße | pots de fleurs | macetas | 27 | ceramic clay stone resin cotton | spring
Indoor Planters | planter, cachepot | plant pot, houseplant holder | übertopf, blumentopf | cache pot, pot de fleurs | maceta
Hanging Planters | macrame plant hanger, hanging planter | plant swing, hanging basket | blumenampel | suspension plante | maceta colgante
Window Boxes | window box, trough planter | balcony flower box | blumenkasten | jardinière | jardinera
Terrariums | terrarium, glass planter | plants in a jar, mini garden | terrarium, flaschengarten | terrarium | terrario
## Seeds & Plants | plants | pflanzen und samen | plantes et graines | plantas y semillas | 11 | paper clay | spring
Seeds | heirloom seeds, seed packet | grow your own, vegetable starter | saatgut, samen | graines | semillas
Houseplants | rooted cutting, potted plant | indoor plant, greenery | zimmerpflanze | plante d'intérieur | planta de interior
Succulents | succulent, cactus | desert plants | sukkulente, kaktus | plante grasse, cactus | suculenta, cactus
Dried Flowers | dried flowers, preserved bouquet | everlasting flowers, pampas | trockenblumen | fleurs séchées | flores secas
## Garden Decor | yard decor | gartendeko | déco de jardin | decoración jardín | 41 | steel brass stone glass oak | summer
Wind Chimes | wind chime, suncatcher | hanging bells, garden sounds | windspiel | carillon à vent | móvil de viento
Bird Houses | birdhouse, bird feeder | nest box, seed feeder | vogelhaus | nichoir, mangeoire | casita de pájaros
Garden Signs | garden sign, plant markers | yard plaque, herb labels | gartenschild | plaque de jardin | letrero de jardín
Garden Statues | garden statue, gnome | lawn ornament | gartenfigur, gartenzwerg | statue de jardin, nain de jardin | estatua de jardín
## Outdoor Living | patio | outdoor | plein air | exterior | 68 | cotton oak canvas steel | summer
Hammocks | hammock, swing chair | garden bed, hanging seat | hängematte | hamac | hamaca
Fire Pits | fire pit, fire bowl | outdoor heater, campfire | feuerschale | brasero | brasero, fogata
Picnic Baskets | picnic hamper, picnic blanket | outdoor lunch set | picknickkorb | panier pique nique | cesta de picnic

# Pet Supplies | pet stuff, pets | haustierbedarf | animaux | mascotas
## Collars & Leashes | pet walking gear | halsbänder und leinen | colliers et laisses | collares y correas | 24 | leather cotton canvas veganleather |
Dog Collars | dog collar, martingale | puppy neck band | hundehalsband | collier pour chien | collar para perro
Leashes | dog leash, rope lead | puppy lead, walking strap | hundeleine | laisse | correa
Pet Tags | pet id tag, engraved tag | name disc, dog tag | hundemarke | médaille pour animal | placa para mascota
Pet Bandanas | dog bandana, slide on bandana | puppy scarf, neckerchief | hundetuch | bandana pour chien | pañuelo para perro
## Pet Homes | pet furniture | tierbetten | couchages animaux | camas para mascotas | 55 | cotton wool felt oak rattan |
Pet Beds | pet bed, dog cushion | puppy sleeping mat | hundebett | panier pour chien | cama para perro
Cat Trees | cat tree, cat shelf | kitty climber, scratching post | kratzbaum | arbre à chat | rascador
Cat Caves | cat cave, cat house | kitty hideout, cosy pod | katzenhöhle | niche pour chat | cueva para gato
## Pet Play | pet toys | tierspielzeug | jouets animaux | juguetes mascotas | 13 | cotton felt wool oak |
Cat Toys | catnip toy, feather wand | kitten kicker, mouse toy | katzenspielzeug | jouet pour chat | juguete para gato
Dog Toys | tug toy, snuffle mat | puppy chew, fetch ball | hundespielzeug | jouet pour chien | juguete para perro
Pet Bowls | raised feeder, pet bowl | food dish for puppy | futternapf | gamelle | comedero
Pet Memorials | pet memorial, paw print keepsake | pet loss, rainbow bridge | tierandenken | souvenir animal | recuerdo de mascota

# Paper & Party | party supplies, stationery | papeterie und party | papeterie et fête | papelería y fiesta
## Cards | greeting cards | grußkarten | cartes de vœux | tarjetas | 6 | paper |
Greeting Cards | greeting card, letterpress card | card for someone, hello note | grußkarte, glückwunschkarte | carte de voeux | tarjeta de felicitación
Invitations | invitation template, invite suite | party invites, save the date | einladungskarte | faire part, invitation | invitación
Thank You Cards | thank you card, note card set | gratitude note | dankeskarte | carte de remerciement | tarjeta de agradecimiento
## Stationery | desk and writing | schreibwaren | fournitures de bureau | papelería | 15 | paper leather cotton brass |
Journals | bound journal, leather notebook | diary, writing book | notizbuch, tagebuch | carnet, journal | cuaderno, diario
Planners | planner insert, weekly planner | agenda, calendar book | kalender, wochenplaner | agenda | agenda, planificador
Bookmarks | bookmark, page marker | reading place holder | lesezeichen | marque page | marcapáginas
Fountain Pens | fountain pen, turned pen | ink pen, nice pen | füller | stylo plume | pluma estilográfica
Wrapping Paper | wrapping paper, kraft paper roll | present wrap, giftwrap | geschenkpapier | papier cadeau | papel de regalo
## Party Decor | party decorations | partydeko | décoration de fête | decoración de fiesta | 19 | paper cotton felt acrylic |
Banners | bunting, pennant banner | garland, flag string | wimpelkette, girlande | guirlande, fanions | banderines, guirnalda
Balloons | balloon arch, foil balloon | balloons, party balls | luftballons | ballons | globos
Cake Toppers | cake topper, cupcake picks | figure on top of cake, baking decoration | tortendeko | topper gâteau | topper para pastel
Party Favors | favor bags, party favor | goodie bags, guest gifts | gastgeschenk | cadeau invité | recuerdo de fiesta
Centerpieces | table centerpiece, floral centerpiece | middle of table decoration | tischdeko | centre de table | centro de mesa
## Wedding Paper | wedding stationery | hochzeitspapeterie | papeterie mariage | papelería de boda | 28 | paper acrylic oak | summer
Guest Books | guest book, polaroid album | signing book, sign in | gästebuch | livre d'or | libro de firmas
Place Cards | place card, escort card | name cards table, seating names | tischkarten | marque place | tarjeta de mesa
Wedding Signs | welcome sign, seating chart | reception board | willkommensschild hochzeit | panneau mariage | cartel de bienvenida boda

# Bath & Beauty | beauty, self care | pflege | beauté | belleza
## Soaps | soaps | seifen | savons | jabones | 9 | paper stone |
Bar Soaps | cold process soap, goat milk soap | body wash bar, natural soap | naturseife, seife | savon artisanal, savon | jabón artesanal
Bath Bombs | bath bomb, shower steamer | fizzy bath, tub treats | badekugel | boule de bain | bomba de baño
Bath Salts | bath salts, soaking salts | relaxing tub soak | badesalz | sels de bain | sales de baño
## Skin Care | skincare | hautpflege | soins de la peau | cuidado de la piel | 21 | beeswax glass stone |
Lip Balms | lip balm, lip butter | chapstick, dry lips | lippenbalsam | baume à lèvres | bálsamo labial
Face Serums | facial serum, face oil | anti aging, glow drops | gesichtsöl, serum | sérum visage | sérum facial
Body Butters | body butter, salve | moisturizer, lotion | körperbutter, creme | beurre corporel, crème | crema corporal
Beard Oils | beard oil, beard balm | facial hair care | bartöl | huile à barbe | aceite de barba
## Hair | hair accessories | haarschmuck | accessoires cheveux | accesorios de pelo | 14 | silk velvet acrylic oak pearl |
Scrunchies | scrunchie, hair tie | ponytail holder, hair bobble | haargummi | chouchou | coletero
Hair Clips | barrette, claw clip | hair grip, hair slide | haarspange | barrette, pince à cheveux | pinza de pelo
Headbands | headband, turban | hair band, alice band | haarband | bandeau, serre tête | diadema
Hair Combs | bridal comb, hair vine | wedding hairpiece, fancy hair pin | haarkamm, brauthaarschmuck | peigne mariée | peineta
## Fragrance | perfumes | düfte | parfums | perfumes | 35 | glass soywax |
Perfumes | perfume oil, eau de parfum | fragrance, cologne | parfüm, duftöl | parfum, huile parfumée | perfume
Incense | incense sticks, smudge bundle | sage bundle, smoke cleansing | räucherstäbchen | encens | incienso
Essential Oils | essential oil blend, diffuser oil | aromatherapy, scent drops | ätherisches öl | huile essentielle | aceite esencial

# Electronics & Desk | gadgets, tech accessories | technik zubehör | accessoires tech | accesorios tecnología
## Phone & Tablet | phone accessories | handyzubehör | accessoires téléphone | accesorios móvil | 24 | leather acrylic resin bamboo veganleather |
Phone Cases | phone case, bumper case | mobile cover, protective shell | handyhülle | coque de téléphone | funda de móvil
Phone Stands | docking station, phone stand | charging holder, mobile rest | handyhalter | support téléphone | soporte móvil
Laptop Sleeves | laptop sleeve, tablet case | computer pouch, notebook cover | laptophülle | housse ordinateur | funda portátil
## Desk | desk accessories | schreibtisch | bureau | escritorio | 33 | oak walnut leather felt steel |
Desk Organizers | desk organizer, pen tray | pencil holder, office tidy | stifthalter | range bureau, pot à crayons | organizador de escritorio
Mouse Pads | desk mat, mouse pad | keyboard underlay | mauspad | tapis de souris | alfombrilla
Keycaps | artisan keycap, keycap set | keyboard buttons, custom keys | tastenkappe | touche clavier | tecla artesanal
Bookends | bookends, book stand | shelf stoppers, library holder | buchstützen | serre livres | sujetalibros
## Audio | music gear | audio | audio | audio | 49 | leather oak acrylic steel |
Headphone Stands | headphone stand, headset hanger | place for headphones | kopfhörerständer | support casque | soporte auriculares
Guitar Straps | guitar strap, guitar picks | guitar belt, plectrum | gitarrengurt | sangle guitare | correa de guitarra
Record Storage | vinyl record stand, lp crate | album holder, music shelf | schallplattenständer | rangement vinyles | porta vinilos

# Vintage | vintage, antiques | antiquitäten | brocante | antigüedades
## Vintage Home | antique homeware | antike wohnaccessoires | brocante maison | hogar antiguo | 54 | brass ceramic glass oak porcelain |
Vintage Glassware | depression glass, milk glass | old glasses, grandma glassware | pressglas, altes glas | verrerie ancienne | cristalería antigua
Vintage Tins | litho tin, advertising tin | old box, storage can | blechdose | boîte en fer ancienne | lata antigua
Antique Frames | antique frame, ornate frame | old picture frame, photo holder | antiker bilderrahmen | cadre ancien | marco antiguo
Typewriters | typewriter, portable typewriter | old writing machine | schreibmaschine | machine à écrire | máquina de escribir
## Vintage Fashion | thrift clothes, second hand clothes | secondhand mode | friperie | moda segunda mano | 46 | leather wool cotton silk |
Vintage Jackets | denim jacket, leather jacket | thrifted coat, retro coat | lederjacke, jeansjacke | veste en cuir, veste en jean | chaqueta de cuero
Vintage Watches | mechanical watch, pocket watch | old timepiece, grandpa watch | taschenuhr | montre à gousset | reloj de bolsillo
Vintage Sunglasses | cat eye sunglasses, deadstock shades | sun glasses, retro eyewear | sonnenbrille | lunettes de soleil | gafas de sol
Vintage Jewelry | estate ring, costume jewelry | grandmother jewels, heirloom | antikschmuck | bijou ancien | joya antigua
## Vintage Media | old media | alte medien | vieux médias | medios antiguos | 22 | paper acrylic leather |
Vinyl Records | vinyl lp, first pressing | record album, old music | schallplatte | disque vinyle | disco de vinilo
Old Books | antiquarian book, first edition | rare novel, old book | altes buch | livre ancien | libro antiguo
Cameras | film camera, rangefinder | old camera, analog photo | analogkamera | appareil photo argentique | cámara analógica
Comics | comic book, bronze age comic | superhero magazine, graphic novel | comicheft | bande dessinée | cómic
"""


@dataclass(frozen=True)
class Words:
    """What sellers and what buyers call a thing: phrases by language, the usual one first."""

    sellers: dict[str, tuple[str, ...]]
    buyers: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Node(Words):
    """A department, group or leaf; `path` is the category as the catalogue writes it."""

    name: str
    path: str


@dataclass(frozen=True)
class Taxonomy:
    """The tree: three levels of nodes and each leaf's and group's parent, by index."""

    departments: tuple[Node, ...]
    groups: tuple[Node, ...]
    leaves: tuple[Node, ...]
    group_department: tuple[int, ...]
    leaf_group: tuple[int, ...]
    group_price: tuple[float, ...]
    group_materials: tuple[tuple[str, ...], ...]
    group_season: tuple[str, ...]


def split_phrases(cell: str) -> tuple[str, ...]:
    """The phrases of a comma-separated cell."""
    return tuple(phrase.strip() for phrase in cell.split(",") if phrase.strip())


def by_language(
    sellers: str, buyers: str, others: list[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Sellers' and buyers' phrases by language from the cells of a line."""
    seller_words, buyer_words = {"en": split_phrases(sellers)}, {"en": split_phrases(buyers)}
    for language, cell in zip(LANGUAGES[1:], others, strict=True):
        phrases = split_phrases(cell)
        seller_words[language], buyer_words[language] = phrases, phrases[::-1]
    return seller_words, buyer_words


def _read_taxonomy() -> Taxonomy:
    departments: list[Node] = []
    groups: list[Node] = []
    leaves: list[Node] = []
    group_department: list[int] = []
    leaf_group: list[int] = []
    prices: list[float] = []
    materials: list[tuple[str, ...]] = []
    seasons: list[str] = []
    for line in _TABLE.strip().splitlines():
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.lstrip("# ").split("|")]
        name = cells[0]
        if line.startswith("##"):
            path = f"{departments[-1].path} > {name}"
            groups.append(Node(*by_language(cells[1], cells[1], cells[2:5]), name, path))
            group_department.append(len(departments) - 1)
            prices.append(float(cells[5]))
            materials.append(tuple(cells[6].split()))
            seasons.append(cells[7])
        elif line.startswith("#"):
            departments.append(Node(*by_language(cells[1], cells[1], cells[2:5]), name, name))
        else:
            path = f"{groups[-1].path} > {name}"
            leaves.append(Node(*by_language(cells[1], cells[2], cells[3:6]), name, path))
            leaf_group.append(len(groups) - 1)
    return Taxonomy(
        tuple(departments),
        tuple(groups),
        tuple(leaves),
        tuple(group_department),
        tuple(leaf_group),
        tuple(prices),
        tuple(materials),
        tuple(seasons),
    )


TAXONOMY = _read_taxonomy()
