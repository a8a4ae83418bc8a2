"""Who works where, with what, at what: the trades of the little world."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade: where it is done, what it needs and makes, and what there is to do (verbs in angle brackets)."""

    name: str
    place: str
    needs: tuple[str, ...]
    makes: tuple[str, ...]
    works: tuple[str, ...]


_TABLE = """
baker|bakery|sack of rye flour,crock of honey,bag of raisins|seed loaf,plum tart,ginger cake|<knead> the dough;
    <sweep> the ashes out of the oven;<dust> the trays with flour;<braid> the bread
smith|forge|bar of iron,basket of charcoal,pail of clay|gate hinge,horseshoe,poker|<pump> the bellows;
    <hammer> a glowing rod;<quench> the blade in the trough;<file> the edges smooth
potter|pottery|lump of red clay,bag of glaze,load of birch wood|jug,glazed bowl,butter dish|<throw> a tall pot;
    <stack> the kiln;<wedge> the clay;<dip> the cups in glaze
weaver|weaving shed|skein of grey wool,bundle of flax,cake of indigo|striped blanket,shawl,table runner|
    <thread> the loom;<wind> the bobbins;<mend> a torn edge;<count> the threads
carpenter|workshop|oak plank,pot of glue,box of nails|stool,cradle,window frame|<plane> a board;<cut> the joints;
    <sharpen> the chisels;<sand> the legs of a bench
miller|mill|millstone pick,coil of rope,sack of barley|bag of bran,sack of oatmeal,bag of fine flour|
    <dress> the stone;<open> the sluice;<weigh> the grain;<shake> the dust from the sieves
fisher|landing stage|hank of twine,pot of pitch,cork float|basket of perch,smoked eel,string of herring|
    <mend> the nets;<bail> out the boat;<gut> the catch;<coil> the lines
gardener|walled garden|basket of seed potatoes,load of manure,bundle of canes|
    bunch of radishes,basket of beans,pot of thyme|<dig> the beds;<tie> up the peas;<prune> the quince;
    <water> the seedlings
shepherd|sheepfold|sack of salt,pot of tar,willow hurdle|fleece,round of cheese,horn whistle|<count> the ewes;
    <trim> their hooves;<carry> hay to the rack;<close> the gap in the fence
tailor|tailor's room|bolt of green cloth,reel of silk,card of buttons|waistcoat,winter coat,velvet cap|
    <chalk> the pattern;<press> the seams;<sew> on a collar;<take> in a pair of trousers
cobbler|cobbler's cellar|piece of calfskin,ball of wax,tin of tacks|pair of boots,pair of clogs,leather satchel|
    <stitch> a sole;<stretch> the leather;<polish> the heels;<knock> out the old nails
beekeeper|orchard|smoker,straw hive,sheet of beeswax|jar of clover honey,beeswax candle,comb in a dish|
    <lift> the combs;<quiet> the bees with smoke;<scrape> the frames;<strain> the honey
clockmaker|clock shop|mainspring,vial of oil,tiny brass screw|wall clock,alarm clock,pocket watch|
    <clean> the escapement;<wind> the regulator;<set> the hands;<fit> a new wheel
bookbinder|bindery|sheet of marbled paper,pot of paste,strip of linen|account book,atlas,songbook|<fold> the sheets;
    <sew> the signatures;<gild> the spine;<press> the boards
glazier|glass house|bag of white sand,box of putty,sheet of lead|coloured pane,bottle,lamp glass|
    <blow> a bubble of glass;<score> a pane;<feed> the furnace;<grind> the rim
apothecary|apothecary's shop|bunch of dried sage,root of valerian,flask of spirits|
    cough syrup,pot of salve,box of powders|<pound> the seeds;<label> the drawers;<strain> a tincture;
    <weigh> out the doses
ferryman|ferry|boat hook,new oar,tin of grease|ferry token,carved paddle,bailing scoop|<haul> on the cable;
    <scrub> the deck;<call> the passengers;<caulk> the seams
innkeeper|inn|keg of ale,side of bacon,bundle of rushes|kettle of soup,pan of dumplings,mutton pie|<polish> the mugs;
    <turn> the spit;<air> the beds;<light> the lamps
schoolteacher|schoolhouse|box of chalk,bottle of ink,map of the province|copybook,spelling chart,star chart|
    <rule> the slates;<correct> the sums;<ring> the bell;<read> a tale aloud
doctor|doctor's house|roll of bandage,bottle of iodine,bag of linseed|splint,bottle of drops,ointment|
    <boil> the needles;<listen> to a chest;<set> a finger;<write> down the fevers
postmaster|post office|ball of string,stick of sealing wax,sheet of stamps|money order,registered parcel,telegram|
    <sort> the letters;<weigh> a parcel;<tie> up the bundles;<stamp> the cards
lamplighter|town square|can of oil,trimmed wick,long pole|storm lantern,rush light,hand lamp|<trim> the wicks;
    <fill> the lamps;<wipe> the soot away;<set> the ladder against a post
basket maker|willow yard|bundle of willow,bodkin,bucket of bark|laundry basket,eel trap,fruit hamper|<soak> the rods;
    <strip> the bark;<weave> a rim;<bend> a handle
stonemason|quarry|mallet,bag of lime,block of granite|doorstep,sundial,grindstone|<split> a slab;<dress> the stone;
    <mix> the mortar;<carve> a date
cheesemaker|dairy|pail of goat milk,bag of rennet,square of muslin|goat cheese,tub of butter,curd in a cloth|
    <stir> the vat;<turn> the wheels of cheese;<skim> the cream;<salt> the curd
cooper|cooperage|bundle of staves,iron hoop,bucket of pitch|cider barrel,wash tub,churn|<bend> the staves;
    <char> the inside of a cask;<drive> down a hoop;<test> for leaks
printer|printing house|ream of paper,can of black ink,case of type|almanac,playbill,row of labels|
    <set> a line of type;<ink> the roller;<pull> a proof;<hang> the wet sheets
fiddler|music room|hank of horsehair,lump of rosin,gut string|bow,bridge for a fiddle,reed pipe|<tune> the strings;
    <practise> a reel;<copy> out the parts;<rub> rosin on the bow
astronomer|observatory|silvered mirror,tube of brass,book of tables|telescope,eyepiece,table of tides|<polish> a lens;
    <plot> a comet;<note> the hour of moonrise;<adjust> the mounting
charcoal burner|clearing|load of alder logs,rake,pile of turf|sack of charcoal,jar of tar,bag of ash|
    <watch> the smoking mound;<rake> out the coals;<cover> the stack with turf;<split> the logs
boatbuilder|slipway|larch board,box of copper rivets,bundle of oakum|rowing boat rudder,mast,pair of oars|
    <steam> a plank;<tar> the hull;<drive> in the rivets;<shape> a rib
toymaker|toy shop|block of limewood,pot of red paint,spool of wire|rocking horse,puppet,spinning top|
    <carve> a small lion;<paint> the faces;<string> the puppets;<glue> on a mane
seamstress|sewing room|paper of pins,length of lace,box of hooks|bonnet,quilt,embroidered apron|<hem> a curtain;
    <match> the patches;<gather> a sleeve;<unpick> a seam
woodcutter|woodland hut|crosscut saw,wedge,flask of oil|stack of logs,bundle of kindling,fence post|<fell> a dead ash;
    <stack> the cordwood;<strip> the branches;<grind> the axe
brewer|brewhouse|sack of malt,bag of hops,jar of yeast|jug of stout,keg of small beer,bottle of cider|<mash> the malt;
    <skim> the froth;<scald> the vats;<taste> the wort
saddler|saddler's shop|side of harness leather,brass buckle,bag of horsehair|bridle,riding saddle,dog collar|
    <wax> the thread;<punch> a row of holes;<stuff> a saddle;<oil> the straps
cartwright|wagon yard|ash felloe,iron tyre,pot of axle grease|cart wheel,handcart,sledge|<true> a wheel;
    <grease> the axle;<shave> the spokes;<paint> the tailboard
watchman|gatehouse|whistle on a chain,thick coat,bull's-eye lantern|key ring,signal flag,list of names|
    <walk> round the walls;<test> the locks;<call> the hour;<oil> the hinges of the gate
"""

TRADES = tuple(
    Trade(name, place, tuple(needs.split(",")), tuple(makes.split(",")), tuple(works.split(";")))
    for name, place, needs, makes, works in (
        line.split("|") for line in _TABLE.strip().replace("\n    ", "").splitlines()
    )
)
