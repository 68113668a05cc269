// corpus.c - a grammar that writes tales and knows how likely each of them is.
//
// First the data: the world (word lists and phrases that all texts share), then one table per voice. A voice is looked
// up before the world. Then one function, walk(), follows a table. The writer and the reader are the same walk: at
// each rule the writer follows the one choice it has drawn, the reader follows every choice and gives up where the text
// differs. The header explains the form of the tables.
//
// Two rules keep the texts fair to a model that sees only 64 characters. A word that must be known later is repeated
// within that distance (one tale in a hundred needs a few characters more). And the parts of a tale (opening, beat, turn,
// ending) use different sentences, so that what may come next can be told from the last sentence alone.

#include "corpus.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---------------------------------------------------------------------------------------------------- the world

static const GrammarRule world[] = {
    {"boy", "2:Tom|2:Ned|2:Ben|2:Max|2:Otto|2:Leo|2:Sam|2:Abel|2:Emil|Hugo|Finn|Jack|Pip|Noah|Bruno|Rob|Walt|Dan"
        "|Gus|Yuri|Quentin|Ivo|Karl|Luke|Piet|Umar|Victor|Arlo|Ravi|Cyril|Kofi|Igor|Bill|Lars|Ralph|Edgar|Pablo"
        "|Jim|Felix"},
    {"girl", "2:Mia|2:Ada|2:Lucy|2:Nora|2:Nell|2:Wren|2:Ella|2:Bea|2:Anna|Ruth|Yara|Hana|Sally|Olga|Iris|Rosa"
        "|Tess|Greta|Clara|Dora|May|Kate|Lotte|Paula|Ursula|Vera|Zoe|Jane|Fanny|Ines|Elsa|Alma|Peg|Lena|Carmen"
        "|Ingrid|Britt|Queenie|Kim"},
    {"name", "{male}{boy}|{female}{girl}"},
    {"hero", "3:{name}|{male}{boy} the {job}|{female}{girl} the {job}"},
    {"job", "2:baker|2:cook|2:thief|2:poet|miller|tailor|sailor|farmer|painter|barber|doctor|judge|butcher|hunter"
        "|teacher|smith|weaver|juggler|plumber|mayor|wizard|captain|nurse|clown|knight|monk|spy|banker|dentist"
        "|hermit|jester|king's cook|pilot|sheriff"},
    {"kin", "2:aunt|2:uncle|sister|brother|cousin|mother|father|boss|nephew|niece|twin|doctor|granny|lawyer|cook"
        "|tailor|teacher|lodger|rival|guest|pupil|mayor|ghost|groom|choir|butler|friend|enemy|vet|dentist"},

    {"a_beast", "9:a {temper} {c=beast}|2:a {c=beast_c}|2:an {temper_v} {c=beast}|an {c=beast_v}"},
    {"his_beast", "{his/her} {mood} {c=beast}"},
    {"beast", "8:{beast_c}|{beast_v}"},
    {"beast_c", "2:goat|2:fox|2:hen|2:duck|2:cat|dog|mouse|bear|badger|hare|frog|crow|pig|goose|sheep|donkey|toad"
        "|mole|wolf|pony|cow|beaver|snail|robin|rat|moth|camel|parrot|lizard|whale|bat|monkey|seal|dragon|swan"
        "|bee|turtle|worm|lion|tiger|shark|crab|spider|rabbit|mule|trout|gnu|llama|panda|newt|gull|stork|vole"
        "|ferret|shrew|yak|flea|pug|hippo|zebra"},
    {"beast_v", "2:owl|otter|eel|ant|ape|eagle|elk|ox"},
    {"temper", "2:hungry|2:sleepy|2:polite|2:grumpy|2:proud|tired|lonely|fat|clever|silly|shy|noisy|rude|brave"
        "|muddy|nervous|bored|wise|greedy|vain|lazy|young|thin|famous|bald|drunk|jealous|kind|lame|royal|poor"
        "|dizzy|spotted|pink|calm|moody|strict|sad|rich|tall|hairy|fierce|gentle|mad|merry|pious|deaf|plump|cross"
        "|jolly|lucky|quiet|loyal|modest|smug|frail|vague|dull|humble|keen|stern"},
    {"temper_v", "2:old|2:angry|idle|odd|ugly|eager|upset"},
    {"mood", "8:{temper}|{temper_v}"},

    {"a_thing", "9:a {look} {made}{t=thing}|2:a {t=thing_c}|2:an {look_v} {made}{t=thing}|an {t=thing_v}"},
    {"made", "9:|tin |paper |glass |brass |silk |stone |steel |wax |wool |clay |cork |lace |oak |pine |ice |bone "
        "|gold |toy |war "},
    {"thing", "9:{thing_c}|{thing_v}"},
    {"thing_c", "2:hat|2:key|2:lamp|2:bell|2:spoon|2:kettle|drum|book|map|coin|button|basket|ladder|broom|boot"
        "|bottle|ring|blanket|pillow|candle|clock|mirror|rope|bucket|barrel|flute|fiddle|kite|box|wig|crown|sock"
        "|teapot|trumpet|hammer|comb|chair|wheel|shovel|net|feather|pebble|scarf|cup|pan|whistle|lantern|parcel"
        "|sack|needle|jar|doll|sword|puppet|violin|quilt|jug|bowl|brick|coat|desk|fork|glove|harp|knife|mop|piano"
        "|sofa|stamp|towel|tub|vase|wand|tooth|cannon|dress|belt|saddle|tray|pipe|stool|cape|flask|globe|razor"
        "|sled|spade"},
    {"thing_v", "2:apron|oar|anchor|egg|axe|organ"},
    {"look", "2:rusty|2:tiny|2:huge|2:golden|2:broken|2:dusty|blue|red|green|silver|heavy|crooked|shiny|cheap"
        "|painted|sticky|wet|strange|black|cracked|fine|hollow|lucky|magic|plain|pretty|round|square|stolen|warm"
        "|yellow|secret|white|purple|haunted|second|brown|grey|cursed|holy|royal|soft|clean|burnt|spare|rented"
        "|frozen|leaky|loud|bent|wild|famous|lost"},
    {"look_v", "2:old|2:odd|empty|ugly|orange|unpaid|even|edible"},

    {"where", "4:in the {air}{inside}|4:{near} the {air}{spot}|3:under the {air}{cover}"},
    {"where_to", "3:to the {air}{spot}|3:into the {air}{inside}|past the {air}{spot}"},
    {"near", "2:by|2:near|2:behind|beyond"},
    {"air", "16:|dark |cold |old |quiet |empty |foggy |haunted |royal |sunny |ruined |secret |windy |pink |new "
        "|tiny |grey |holy |stone |green |busy |dirty |stolen |narrow |local |wrong |poor |white |black |odd "},
    {"spot", "2:lake|2:river|2:well|mill|gate|pond|market|church|forest|hill|village|meadow|bridge|fair|harbour"
        "|beach|orchard|castle|farm|station|inn|ferry|quarry|swamp|palace|bank|zoo|docks|woods|border|circus|dam"
        "|cliff|fort"},
    {"inside", "2:barn|2:kitchen|2:cellar|garden|attic|shop|tower|boat|cave|stable|school|library|bakery|tent"
        "|hall|chimney|closet|bath|theatre|museum|prison|pantry|cabin|shed|hotel|hen house|train|tunnel|office"
        "|laundry|bank|drain"},
    {"cover", "2:bed|2:table|stairs|tree|wagon|bench|roof|carpet|hedge|piano|moon|stage|desk|bridge|sofa|ice|flag"
        "|hay|floor|stars|sink"},

    {"flavour", "2:onion|2:plum|nettle|cherry|carrot|pepper|lemon|ginger|turnip|bean|apple|walnut|pear|cabbage"
        "|fish|potato|pumpkin|garlic|rose|leek|beef|mint|rice|lime|fig|beet|corn|kelp|oat|nut"},
    {"dish", "2:soup|2:pie|bread|cake|jam|stew|pudding|tea|cheese|porridge|ice|salad|wine|toast|gravy|fudge|rum"
        "|juice|sauce|dumplings|curry|broth|beer|mash"},
    {"food", "{flavour} {dish}"},
    {"taste", "2:soap|dust|mud|smoke|honey|sand|rust|old socks|grass|glue|roses|wool|tears|paint|chalk|ink|salt"
        "|wax|tar|cats|ashes|wet {beast}|blood|feet|hay|ham|hope|cigars|coal|moss|leaves"},
    {"colour", "blue|green|red|pink|yellow|black|white|purple|grey|gold|brown"},
    {"weekday", "Monday|Tuesday|Wednesday|Thursday|2:Friday|Saturday|2:Sunday"},
    {"sky", "2:windy|2:rainy|cold|sunny|foggy|snowy|hot|quiet|grey|lovely|stormy|dull|bright|frosty|damp|mild|icy"
        "|odd|fine|dark"},
    {"hour", "3:morning|2:evening|2:night|noon|day|summer|winter|spring|dawn|autumn"},
    {"travelled", "walked|ran|rode|marched|hurried|skipped|strolled|crept|drove|limped|wandered|danced|rushed"
        "|swam|crawled|jogged|flew|hopped|strode|rolled|went"},
    {"found", "2:found|bought|stole|won|borrowed|hid|got|saw|built|made|broke|sold|lost"},
    {"skill", "sing|read|dance|swim|cook|count|sew|juggle|paint|whistle|lie|snore|sail|knit|bake|fly|wink|bow"
        "|drive|fish|yodel|argue|kiss|vote|ski|spell|box|pray|steal|wrestle|type|hum|march|relax|climb|weave"
        "|shave|beg|row|haggle|nap|sneeze|gossip|skate|faint|pose|limp|rhyme|dig"},
    {"how", "badly|slowly|quietly|gladly|loudly|quickly|politely|twice|well|sadly|bravely|too late|as usual"
        "|in bed|for hours|at once|by mistake|for free|all day|until {weekday}|every {hour}|daily|again|in secret"
        "|alone|by post|in tears|at noon|in vain|by ear|in Latin|on foot|uphill|in rhyme|for luck|on credit"
        "|with {dish}"},
    {"maybe", "| {how}"},
    {"did", "2:laughed|2:wept|bowed|sneezed|snored|yawned|danced|sang|fainted|whistled|blushed|nodded|shrugged"
        "|coughed|winked|waved|hid|ran|left|slept|sulked|cheered|sighed|prayed|screamed|jumped|limped|trembled"
        "|burped|smiled|frowned|grinned|giggled|howled|moaned|growled|melted|vanished|swam|stayed|waited"
        "|fell over|sat down|ran off|woke up|gave up|blinked|stared|shivered|hummed|squeaked|sobbed|snorted"
        "|itched|paid|lied|froze|grew|turned {colour}|said no|exploded|meditated|knelt|floated|slipped|drowned"
        "|rhymed|panicked|retired|agreed|objected|skated|napped|gasped|dozed|confessed|shouted|shrank|returned"
        "|beamed|wobbled"},
    {"did_to", "2:ate|2:stole|hid|licked|swallowed|sat on|broke|sold|kicked|buried|chewed|painted|washed|kissed"
        "|bit|chased|followed|fed|burned|lost|found|caught|tickled|dropped|hugged|bought|borrowed|polished"
        "|sniffed|scratched|shook|weighed|insulted|ironed|folded|feared|loved|hated|married|measured|ignored"
        "|admired|blessed|cursed|drew|lifted|dragged|threw|squeezed|rescued|tamed|sued|boiled|fried|tasted|forgot"
        "|praised|greeted|trusted|warmed|rented|wore|rode|hired|saw"},
    {"said", "2:said|cried|sighed|barked|whispered|shouted|sobbed|sang|yawned|hissed|lied|roared|squeaked|mumbled"
        "|begged|prayed|joked|wrote|moaned|wept|growled|claimed|added|thought|guessed|gasped|wailed|purred|swore"},
    {NULL, NULL},
};

// ---------------------------------------------------------------------------------------------------- the voices

static const GrammarRule tales[] = {
    {"tale", "2:{opening} {beat} {ending}|5:{opening} {beat} {turn} {ending}"},

    {"opening", "4:{when}, {hero} {travelled} {where_to}.|3:{hero} {lived} {where} with {his_beast}."
        "|3:{hero} {wanted} to {plan}.|2:{name} {owned} {a_thing} and {a_thing}."},
    {"when", "4:One {sky} {hour}|On {weekday}|Early on {weekday}|2:Last {weekday}|Before {meal}|After {meal}"
        "|At {clock}|In {month}"},
    {"meal", "2:breakfast|lunch|dinner|school|church|tea|the war|the ball|the flood"},
    {"clock", "noon|midnight|dawn|sunset|six|nine|ten|one|two|three"},
    {"month", "March|May|June|April|August|October|January"},
    {"lived", "3:lived|worked|slept|danced|hid|sang|camped|argued|dined|grew up|fished"},
    {"owned", "2:owned|sold|carried|invented|painted|wore|wanted|buried|lost|juggled|ate|stole|loved|mended|drew"
        "|hid"},
    {"wanted", "2:wanted|hoped|planned|tried|promised|forgot|loved|vowed|needed|refused|began|feared"},
    {"plan", "3:teach {a_beast} to {skill}|2:paint the {spot} {colour}|sell {a_thing}|2:cook {food}"
        "|marry {a_beast}|2:{skill} {where}|buy {a_thing}|bathe {a_beast}|find {a_thing}"},

    {"so", "3:so|2:and|2:but|till"},
    {"beat", "4:{find}|3:{meet}|2:{cooking}|2:{trade}|2:{mishap}|2:{race}|2:{lesson}"},
    {"find", "^{he/she} {found} {a_thing} {here}, {find_end}"},
    {"here", "in the {inside}|{near} the {spot}|under the {cover}"},
    {"find_end", "2:{so} {he/she} {did} {how}.|but {his/her} {beast} {did_to} it."
        "|{so} {he/she} {did_to} it {how}.|but it was {his/her} {kin}'s.|2:but it {did}, so {he/she} {did}."
        "|and {his/her} {kin} {did_to} it{maybe}."},
    {"meet", "^{he/she} {did_to} {a_beast}. {talk}"},
    {"talk", "3:\"{hungry}!\" it {said}, {so} {he/she} {gave} it {food}.|2:\"{cold}!\" it {said}, {so} {he/she} "
        "{gave} it {a_thing}.|\"Where's the {spot}?\" it {said}, {so} {he/she} {did}{maybe}.|\"Is that your "
        "{thing}?\" it {said}, {so} {he/she} {did}{maybe}."
        "|\"Let's {skill}!\" it {said}, {so} {he/she} {did}{maybe}."
        "|\"You're {mood},\" it {said}, {so} {he/she} {did}{maybe}."},
    {"hungry", "I'm hungry|Feed me|I smell {food}|I can't eat {dish}|Got any {dish}|Pay me|No {food}|Lunch"
        "|I hate {food}"},
    {"cold", "2:I'm cold|Help|I'm {mood}|I'm late|Look, {dish}|I can {skill}|I've lost my {thing}|It's {weekday}"
        "|I want {dish}|Don't {skill}"},
    {"gave", "2:gave|sold|lent|bought|threw|fetched|showed|promised|sent|made|brought|owed|passed|left|mailed"},
    {"cooking", "^{he/she} {cooked} {food} for {his/her} {kin}. It {tasted} of {flavour} and {taste}, {so} "
        "{he/she} {did}{maybe}."},
    {"cooked", "made|cooked|bought|ordered|burned|stole|invented|boiled|fried|begged|baked|saved"},
    {"tasted", "2:tasted|2:smelled|reeked|was made"},
    {"trade", "^{his/her} {kin} {gave} {him/her} {a_thing} for {his/her} {look} {thing}, {deal}."},
    {"deal", "2:{so} {he/she} {did} {how}|but {his/her} {beast} {did_to} it|but {he/she} wanted {food}"},
    {"mishap", "^{he/she} {tripped} over {his/her} {look} {thing}, fell into the {wet} and {emerged}."},
    {"tripped", "2:tripped|jumped|climbed|slipped|leaned|danced|flew"},
    {"wet", "river|pond|mud|well|lake|ditch|cream|flour|paint|bin|{dish}|sea|fire|crowd"},
    {"emerged", "{harmed} {his/her} {look} {thing}|2:{harmed} {his/her} {kin}'s {thing}|{did_to} {his/her} {kin}"
        "|woke {his_beast}"},
    {"harmed", "lost|broke|soaked|ruined|dropped|drowned|bent|forgot|swallowed"},
    {"race", "^{he/she} {raced} {his_beast} {where_to}. It {did}, {so} {he/she} {did}{maybe}."},
    {"raced", "raced|chased|followed|carried|dragged|drove|rode|pushed|led|sent"},
    {"taught", "2:taught|begged|paid|told|asked|forced|helped|hired|wanted"},
    {"lesson", "^{he/she} {taught} {a_beast} to {skill}, {but_it}."},
    {"but_it", "so it {did_to} {his/her} {look} {thing}|and it {did_to} {his/her} {mood} {kin}"
        "|but it {did}, {so} {he/she} {did} {how}"},

    {"turn", "3:{weather}|3:{theft}|2:{noise}|2:{post}|{sign}|4:{newcomer}"},
    {"weather", "2:{soon} it {rained}, {so} {he/she} {did} {where}.|{soon} the {wind} took {his/her} {kin}'s "
        "{thing}, {so} {he/she} {did}{maybe}."},
    {"soon", "2:Then|2:Soon|2:Now|At {clock}|On {weekday}|In {month}|2:Later|Luckily,"},
    {"rained", "3:rained|2:snowed|hailed|got {sky}|grew {sky}|thundered"},
    {"wind", "2:wind|river|sea|king|moon|post|flood|{job}"},
    {"theft", "{but} {a_beast} {did_to} {his/her} {made}{thing}, so {he/she} {reacted}."},
    {"but", "3:But|Just then|2:Next,|Sadly,|Later,|Alas,|Once more"},
    {"reacted", "{did_to} it|{did} {how}|bought {a_thing}|{did_to} its {kin}|{did_to} its {look} {thing}"},
    {"noise", "{suddenly} {his/her} {kin}'s {thing} {did}, {so} {he/she} {did_to} it {how}."},
    {"suddenly", "2:Suddenly|At last|Even|By chance|By then,|For once|Oddly,|This time,"},
    {"post", "A {letter} came from {his/her} {kin}: \"{order}!\" So {he/she} {did}."},
    {"letter", "3:letter|note|card|crow|pigeon|cry|bill|{thing_c}"},
    {"order", "Bring {a_thing}|Bury {a_thing}|Come home|Feed the {beast}|Send {food}|Sell the {thing}|Marry me"
        "|Pay me|Don't {skill}|Run|Eat {food}|I can {skill}"},
    {"sign", "A {look} sign told {him/her}: \"{beware} the {beast}!\" So {he/she} {did}."},
    {"beware", "Fear|Feed|Mind|Obey|Pay|Respect|Kiss|Ride|Ask|Love|Wash|Greet"},
    {"newcomer", "^{where}, {hero} {did_to} {a_beast}."},

    {"ending", "3:{rest}|2:{vow}|3:{moral}|2:{home}|3:{keeps}|2:{doubt}|2:{diet}|{quiz}"},
    {"rest", "That {night}, {he/she} {did}{maybe} {where}."},
    {"night", "night|evening|winter|summer|week|year|autumn|{weekday}|spring|month|day"},
    {"vow", "^{he/she} never {did_to} {a_beast} {again}."},
    {"again", "4:again|on {weekday}s|in {month}|after {meal}|before {meal}|at {clock}"},
    {"moral", "^{he/she} {said}: \"{wisdom}{exclaim}\""},
    {"exclaim", "2:.|2:!|, really."},
    {"wisdom", "I'm {mood}|3:Never {trust} {a_beast} with {a_thing}|I love {food}|I'll {skill} {how}"
        "|I need {a_thing}|I miss my {thing}|Life is {food}|Be {mood}|Don't {skill} {where}"},
    {"trust", "trust|leave|feed|hit|paint|wake|chase|wash|kiss|tickle|fight|teach|pay"},
    {"home", "2:{soon} {he/she} {travelled} home, {worn} but {glad}."
        "|{soon} {he/she} {travelled} home with {a_thing}."},
    {"worn", "wet|cold|late|alone|barefoot|9:{mood}|lost|sore|broke"},
    {"glad", "2:happy|free|in love|singing|alive|6:{mood}|clean|safe"},
    {"keeps", "{even_now} {he/she} {keeps_verb} {a_thing} {where}."},
    {"even_now", "2:Even now|Every {hour},|Every {weekday},|Today|These days,"},
    {"keeps_verb", "2:keeps|hides|polishes|worships|feeds|plays|guards|rents|paints|hits|wears|sells"},
    {"doubt", "Only {his/her} {kin} {did_to} {him/her}{maybe}."},
    {"diet", "^{he/she} now {eats} {food} {how}."},
    {"eats", "2:eats|cooks|sells|wants|loves|trusts|steals|praises|needs|fears|makes|burns"},
    {"quiz", "Was {he/she} {glad}? {answer}!"},
    {"answer", "2:Yes|2:No|A little|Very|Ask {a_beast}|Perhaps|Hardly|On {weekday}s"},
    {NULL, NULL},
};

static const GrammarRule pirate[] = {
    {"tale", "2:{opening} {beat} {ending}|4:{opening} {beat} {turn} {ending}"},
    {"arr", "4:Arr|2:Aye|Ahoy|Avast|Har har"},
    {"mate", "3:matey|me hearties|ye dogs|says I|ye {mood} {beast}|ye {beast}"},
    {"end", "4:.|3:!|3:, {mate}!|, arr!|2:, aye."},
    {"opening", "3:{arr}, {where_to} {sailed} {hero}{end}|2:{arr}, {a_beast}'s {rank} be {hero}{end}"
        "|2:{arr}, {where} {name} {did_to} {a_thing}{end}"},
    {"sailed", "sailed|rowed|{travelled}"},
    {"rank", "3:cap'n|mate|parrot|{job}|slave|prisoner|bride"},
    {"beat", "3:^{he/she} be {seeking} {a_thing}, but {a_beast} {did_to} it {where}{end}"
        "|3:^{he/she} {did_to} {a_thing} an' {food} {where}{end}|2:^{he/she} met {a_beast}. \"{hand_over} yer "
        "{thing}, ye {mood} {beast}!\" it {said}.|2:^{he/she} {said}: \"{walk}, ye {mood} {beast}!\""},
    {"seeking", "after|seekin'|huntin'|guardin'|polishin'|buryin'|eatin'|sellin'|ridin'|kissin'"},
    {"hand_over", "2:Hand over|Gimme|Eat|Swab|Kiss|Bury|Drop|Hide"},
    {"walk", "2:Walk the plank|Hoist the {thing}|Eat yer {dish}|Swab me {thing}|Drink yer {dish}|Fetch me {thing}"},
    {"turn", "3:{arr}, then {a_beast} boarded us, so we {did_to} it {how}{end}"
        "|2:But the {air}sea took me {thing} an' {a_beast}{end}"
        "|2:Then we fired {a_thing} at {name}'s {beast}{end}"
        "|2:{arr}, me {look} {thing} {did}, so I {did_to} it{end}"},
    {"ending", "2:An' me {thing} smells o' {taste}{end}|2:Now I be {rich}, an' me {thing} be {lost}{end}"
        "|2:So raise yer {thing} an' drink {food}{end}|2:Yo ho, {a_beast} an' a {look} {thing}{end}"
        "|2:Never trust {a_beast} wi' yer {thing}{end}|I {did} {where}{end}"},
    {"rich", "dead|2:{mood}|in love|seasick"},
    {"lost", "gone|2:{look}|full o' {dish}"},
    {NULL, NULL},
};

static const GrammarRule robot[] = {
    {"tale", "2:{opening} {beat} {ending}|4:{opening} {beat} {turn} {ending}"},
    {"beep", "4:|2: Beep.|2: Boop.| Beep boop.| Whirr.| Bzt."},
    {"opening", "4:Log: human {hero} {travelled} {where_to}.{beep}|2:Log: {hero} {did_to} {a_thing}.{beep}"
        "|2:Log: {hero} tries to {skill} {where}.{beep}"},
    {"beat", "3:Scan: {a_beast} {where}.{beep} Action: {act} {c} {how}."
        "|3:Scan: {a_thing} {where}.{beep} Use of {t}: {purpose}.|2:Input: {food}. Output: {taste}.{beep}|3:Task: "
        "teach {a_beast} to {skill}. Result: {result}.{beep}"},
    {"act", "greet|feed|repair|polish|measure|tickle|replace|arrest|calm|paint|recycle|obey|weigh|hug|scan|reboot"
        "|chase"},
    {"purpose", "{skill}|{skill} {how}|hold {food}|annoy {a_beast}|{act} {a_beast}|{colour} {dish}"},
    {"result", "it {did}|it {did} {how}|it {did_to} {a_thing}|{c} is {mood}|{taste}|{a_thing} is lost"},
    {"turn", "3:Error: {beast} {did_to} my {look} {thing}.{beep}|3:Alert: {a_beast} {did_to} {a_thing}.{beep}"
        "|2:Query: what is {abstract}?{beep}"},
    {"abstract", "2:{food}|love|{a_beast}|{a_thing}|joy|{weekday}|sleep|{colour} {dish}"},
    {"ending", "2:Joy level: {level}.{beep}|2:Battery: {level}. Must {act} {a_beast}."
        "|2:Lesson: humans {like} {a_thing}.{beep}|2:Plan: {skill} {how} {where}.{beep}"
        "|2:Human is {mood}. I am {mood}.{beep}"},
    {"level", "2:low|high|zero|2:{mood}|rising|{flavour}|too high|falling"},
    {"like", "like|fear|need|sit on|forget|talk to|wear|eat|marry|worship|break|hide"},
    {NULL, NULL},
};

static const GrammarRule ghost[] = {
    {"tale", "2:{opening} {beat} {ending}|4:{opening} {beat} {turn} {ending}"},
    {"oooh", "3:Oooh|2:Booo|2:Woooo|Ooooooh|Boo hoo"},
    {"moan", "4:.|, oooh!|, woooo.|, alas.|, sigh.|2:!| {how}."},
    {"opening", "4:{oooh}, I haunt the {air}{inside} with {a_beast}{moan}|2:{oooh}, I died {where}{moan}"
        "|3:{oooh}, I am the {mood} ghost of {a_beast}{moan}"},
    {"beat", "4:Tonight {name} {came} with {a_thing}, so I {did_to} {him/her}{moan}|3:{hero} {did_to} my {look} "
        "{thing}, so I {did} {where}{moan}|2:I {rattled} {a_thing} at {hero}, but {he/she} {did}{moan}"},
    {"came", "came|knocked|moved in|broke in|returned|woke me|danced|sang|camped|prayed|fled"},
    {"rattled", "rattled|threw|waved|dropped|banged|swung|blew"},
    {"turn", "3:In my day, {a_beast} {knew} to {skill} {how}{moan}|2:I want {food}, but it {falls} me{moan}|3:Then "
        "{a_beast} walked through me and {did_to} {a_thing}{moan}"},
    {"knew", "knew how|wanted|had|learned|feared|began|paid"},
    {"falls", "falls through|hates|bores|avoids|fears|passes"},
    {"ending", "2:Nobody {fears} {a_beast}'s ghost{moan}|2:Now I {skill} alone {where}{moan}"
        "|Being dead is {mood} work{moan}|2:I was {mood} when I had {a_thing}{moan}"
        "|2:Boo to {a_beast} and its {look} {thing}{moan}|I miss {food}{moan}"},
    {"fears", "fears|loves|feeds|pays|hugs|hears|thanks"},
    {NULL, NULL},
};

static const char *const names[] = {"tales", "pirate", "robot", "ghost", NULL};
static const GrammarRule *const voices[] = {tales, pirate, robot, ghost};

// ---------------------------------------------------------------------------------------------------- the tables, parsed

typedef struct Choice {
    const char *pattern;     // inside the table's string: ends at '|' or 0
    int weight;
    double nats;             // log(total / weight)
} Choice;

typedef struct Rule {
    const char *name;
    int first, count, total; // its choices in Grammar.choices, and the sum of their weights
} Rule;

enum { MAX_RULES = 256, MAX_CHOICES = 2048, MAX_TALE = 4096, LETTERS = 26 };

typedef struct Grammar {
    Rule rules[MAX_RULES];
    Choice choices[MAX_CHOICES];
    int rule_count, choice_count;
} Grammar;

static void *must_alloc(void *old, size_t bytes)
{
    void *memory = realloc(old, bytes);
    if (!memory) {
        fprintf(stderr, "corpus: out of memory: %zu bytes for a text; ask for a shorter one\n", bytes);
        exit(1);
    }
    return memory;
}

static void add_rules(Grammar *g, const GrammarRule *table)
{
    for (; table->name; table++) {
        assert(g->rule_count < MAX_RULES && strlen(table->name) > 1);
        Rule *rule = &g->rules[g->rule_count++];
        *rule = (Rule){table->name, g->choice_count, 0, 0};
        for (const char *p = table->choices;; p++) {
            char *after;
            int weight = (int)strtol(p, &after, 10);
            if (*after == ':') p = after + 1;
            else weight = 1;
            assert(g->choice_count < MAX_CHOICES && weight > 0);
            g->choices[g->choice_count++] = (Choice){p, weight, 0.0};
            rule->count++;
            rule->total += weight;
            p += strcspn(p, "|");
            if (*p == 0) break;
        }
        for (int i = rule->first; i < rule->first + rule->count; i++)
            g->choices[i].nats = log((double)rule->total / g->choices[i].weight);
    }
}

static bool is_word(const char *p, size_t length, const char *word)
{
    return strncmp(p, word, length) == 0 && word[length] == 0;
}

static const Rule *find_rule(const Grammar *g, const char *name, size_t length)
{
    for (int i = 0; i < g->rule_count; i++)
        if (is_word(name, length, g->rules[i].name)) return &g->rules[i];
    return NULL;
}

// A grammar for one call: the voice's rules first, so that they are found before the world's. Every name is looked up
// here once, so that a mistake in a table shows at once and not in the one tale that takes that turn.
static Grammar *parse_grammar(const GrammarRule *voice, const GrammarRule *shared)
{
    Grammar *g = must_alloc(NULL, sizeof *g);
    g->rule_count = g->choice_count = 0;
    add_rules(g, voice);
    if (shared) add_rules(g, shared);
    for (int i = 0; i < g->choice_count; i++) {
        const char *p = g->choices[i].pattern;
        for (size_t left = strcspn(p, "|"); left > 0; p++, left--) {
            if (*p != '{') continue;
            size_t length = strcspn(p, "}") - 1, skip = p[2] == '=' ? 2 : 0;
            assert(length + 1 < left && "a brace is not closed");
            bool known = length == 1 || memchr(p, '/', length) || is_word(p + 1, length, "male")
                         || is_word(p + 1, length, "female") || find_rule(g, p + 1 + skip, length - skip);
            assert(known && "a choice names an unknown rule");
            (void)known;
        }
    }
    return g;
}

// ---------------------------------------------------------------------------------------------------- the walk

typedef struct Memory {
    int start, length;       // the remembered word, in the tale
    int last;                // where it was last written
} Memory;

// Where a walk stands. It is passed by value: whoever tries several choices gives each its own copy, so going back to
// the state before a choice is nothing but returning.
typedef struct Walk {
    int at;                  // characters written or read
    double pending, nats;    // -log P of the choices since the last character, and of all
    bool capital;            // the next letter is one
    bool female;             // whom pronouns mean,
    int hero_last;           // and where a name or pronoun last said so
    int reach;               // the farthest look back so far
    Memory memory[LETTERS];
} Walk;

// What all steps of one walk share.
typedef struct Pen {
    const Grammar *grammar;
    uint64_t *random;        // the writer's; NULL makes the walk a reader
    char *text;              // the tale being written, or to be read
    float *nats;             // the writer's: one for each character
    Walk end;                // the last walk that came to the end of the tale
} Pen;

// What remains to be written after the rule that is being expanded: the rest of the choice that named it, and so on
// outwards.
typedef struct Rest {
    const char *pattern;
    char letter;             // remember the expansion under this letter, unless it is 0
    int start;               // where the expansion begins
    const struct Rest *outer;
} Rest;

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

// Writes one character, or reads it: false if the text has another one (or none) there.
static bool put(Pen *pen, Walk *w, char c)
{
    if (w->capital) c = (char)toupper((unsigned char)c);
    w->capital = false;
    if (pen->random) {
        assert(w->at < MAX_TALE - 1);
        pen->text[w->at] = c;
        pen->nats[w->at] = (float)w->pending;
    } else if (pen->text[w->at] != c) {
        return false;
    }
    w->at++;
    w->pending = 0.0;
    return true;
}

static bool put_word(Pen *pen, Walk *w, const char *word, int length)
{
    for (int i = 0; i < length; i++)
        if (!put(pen, w, word[i])) return false;
    return true;
}

static void look_back(Walk *w, int *last)
{
    if (w->at - *last > w->reach) w->reach = w->at - *last;
    *last = w->at;
}

static int choose(Pen *pen, Walk w, const Rule *rule, const Rest *rest);

// Follows a pattern from p to its end and then the rest. Returns how many ways lead to the end of the tale.
static int walk(Pen *pen, Walk w, const char *p, const Rest *rest)
{
    while (*p != 0 && *p != '|') {
        if (*p == '^') {
            w.capital = true;
            p++;
            continue;
        }
        if (*p != '{') {
            if (!put(pen, &w, *p++)) return 0;
            continue;
        }
        const char *name = p + 1, *close = strchr(p, '}');
        const char *slash = memchr(name, '/', (size_t)(close - name));
        size_t length = (size_t)(close - name);
        p = close + 1;
        if (slash) {                                                     // {he/she}
            const char *word = w.female ? slash + 1 : name;
            look_back(&w, &w.hero_last);
            if (!put_word(pen, &w, word, (int)((w.female ? close : slash) - word))) return 0;
        } else if (length == 1) {                                        // {c}
            Memory *memory = &w.memory[*name - 'a'];
            assert(memory->length > 0 && "repeated before it was bound");
            look_back(&w, &memory->last);
            if (!put_word(pen, &w, pen->text + memory->start, memory->length)) return 0;
        } else if (is_word(name, length, "male") || is_word(name, length, "female")) {
            w.female = *name == 'f';
            w.hero_last = w.at;
        } else {                                                         // {rule} or {c=rule}
            bool bound = name[1] == '=';
            Rest next = {p, bound ? *name : (char)0, w.at, rest};
            return choose(pen, w, find_rule(pen->grammar, name + 2 * bound, length - 2 * bound), &next);
        }
    }
    if (rest) {
        if (rest->letter) w.memory[rest->letter - 'a'] = (Memory){rest->start, w.at - rest->start, rest->start};
        return walk(pen, w, rest->pattern, rest->outer);
    }
    if (!pen->random && pen->text[w.at] != 0) return 0;                  // the tale is over and the text is not
    pen->end = w;
    return 1;
}

// The writer draws one choice of the rule and follows it; the reader follows them all and adds up the ways.
static int choose(Pen *pen, Walk w, const Rule *rule, const Rest *rest)
{
    int drawn = pen->random ? (int)(splitmix64(pen->random) % (uint64_t)rule->total) : 0, ways = 0;
    for (int i = rule->first; i < rule->first + rule->count; i++) {
        const Choice *choice = &pen->grammar->choices[i];
        if (pen->random) {
            drawn -= choice->weight;
            if (drawn >= 0) continue;
        }
        Walk next = w;
        next.pending += choice->nats;
        next.nats += choice->nats;
        ways += walk(pen, next, choice->pattern, rest);
        if (pen->random) break;
    }
    return ways;
}

// ---------------------------------------------------------------------------------------------------- the texts

const char *const *corpus_names(void) { return names; }

static const GrammarRule *find_voice(const char *name)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], name) == 0) return voices[i];
    return NULL;
}

bool corpus_write(const char *name, uint64_t seed, long length, Corpus *corpus)
{
    *corpus = (Corpus){0};
    const GrammarRule *voice = find_voice(name);
    if (!voice) return false;
    Grammar *grammar = parse_grammar(voice, world);
    char tale[MAX_TALE];
    float nats[MAX_TALE];
    Pen pen = {.grammar = grammar, .random = &seed, .text = tale, .nats = nats};
    size_t room = 0;
    do {
        walk(&pen, (Walk){0}, "{tale}\n\n", NULL);
        size_t old = (size_t)corpus->length, new = old + (size_t)pen.end.at;
        if (new + 1 > room) {
            room = 2 * (new + 1);
            corpus->text = must_alloc(corpus->text, room);
            corpus->nats = must_alloc(corpus->nats, room * sizeof *corpus->nats);
        }
        memcpy(corpus->text + old, tale, new - old);
        memcpy(corpus->nats + old, nats, (new - old) * sizeof *nats);
        corpus->text[new] = 0;
        corpus->length = (long)new;
        if (pen.end.reach > corpus->reach) corpus->reach = pen.end.reach;
    } while (corpus->length < length);
    free(grammar);
    return true;
}

void corpus_free(Corpus *corpus)
{
    free(corpus->text);
    free(corpus->nats);
    *corpus = (Corpus){0};
}

double corpus_floor(const Corpus *corpus, long begin, long end)
{
    assert(begin >= 0 && end <= corpus->length);
    double sum = 0.0;
    for (long i = begin; i < end; i++) sum += (double)corpus->nats[i];
    return end > begin ? sum / (double)(end - begin) : 0.0;
}

static int derivations(const GrammarRule *voice, const GrammarRule *shared, const char *tale, double *nats)
{
    Grammar *grammar = parse_grammar(voice, shared);
    Pen pen = {.grammar = grammar, .text = (char *)tale};        // a reader does not write
    int ways = walk(&pen, (Walk){0}, "{tale}", NULL);
    if (ways > 0 && nats) *nats = pen.end.nats;
    free(grammar);
    return ways;
}

int grammar_derivations(const GrammarRule *rules, const char *tale, double *nats)
{
    return derivations(rules, NULL, tale, nats);
}

int corpus_derivations(const char *name, const char *tale, double *nats)
{
    const GrammarRule *voice = find_voice(name);
    return voice ? derivations(voice, world, tale, nats) : 0;
}
