"""Where things happen: how one stands there (at, in, on), and what there is to see, hear and smell."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A place; `details` are noun phrases."""

    name: str
    preposition: str
    details: tuple[str, ...]

    @property
    def the(self) -> str:
        """The place with its article."""
        return f"the {self.name}"

    @property
    def where(self) -> str:
        """`at the mill`."""
        return f"{self.preposition} the {self.name}"


_TABLE = """
bakery|in|the smell of crust,a row of cooling loaves,a cat asleep on the flour bin
forge|at|the ring of the anvil,a red glow on the wall,the breath of the bellows
pottery|in|a shelf of unfired cups,a wheel still turning,handprints of dry clay
weaving shed|in|the clack of the loom,a drift of lint,a half-finished border
workshop|in|curls of pale wood,the scent of resin,a vice without a handle
mill|at|the rumble of the stones,a veil of white dust,sparrows in the rafters
landing stage|on|the slap of the water,a gull on a post,nets hung up to dry
walled garden|in|the warm bricks,a toad under the rhubarb,a row of glass bells
sheepfold|at|the bleating of lambs,tufts of wool on the wire,a crooked gate
tailor's room|in|snippets of thread,a headless dummy,a tall mirror
cobbler's cellar|in|a heap of old soles,the light of one candle,the tap of a small hammer
orchard|in|windfalls in the grass,the hum of hives,a ladder against a bough
clock shop|in|the ticking of forty clocks,a cuckoo that was always late,a tray of tiny wheels
bindery|in|stacks of folded paper,the smell of paste,a press like a gallows
glass house|in|the roar of the furnace,green light through bottles,a bucket of shards
apothecary's shop|in|rows of brown jars,a scale under a cloth,the bitter smell of herbs
ferry|on|the creak of the cable,a puddle in the bottom,the smell of river mud
inn|at|a fire of apple wood,the murmur of cards and talk,a dog under the table
schoolhouse|in|chalk dust in a sunbeam,initials cut in a desk,a globe with a dent
doctor's house|at|a skeleton with a hat on,the tick of a slow clock,a row of muddy boots
post office|in|pigeonholes full of envelopes,a notice with curled corners,the thump of the stamp
town square|in|pigeons round the fountain,a handcart of cabbages,two old men on a bench
willow yard|in|bundles soaking in the tank,peelings underfoot,a robin on the fence
quarry|at|the echo of hammers,a pool of green rain,pale dust on the brambles
dairy|in|the drip of whey,cold tiles,a row of white wheels
cooperage|in|hoops on the wall,the smell of scorched oak,shavings up to the ankle
printing house|in|the clatter of the press,inky thumbprints,wet posters on a line
music room|in|a cello without strings,a stack of yellow scores,an open window
observatory|at|the slot in the dome,a chart pinned to the door,a cold iron stair
clearing|in|a thread of blue smoke,stumps silvered with age,a jay calling
slipway|on|the ribs of a boat,the stink of tar,pebbles rattling in the surf
toy shop|in|a crowd of painted eyes,a train on the floor,a bell over the door
sewing room|in|pins in the floorboards,a basket of scraps,the whirr of a machine
woodland hut|at|a saw on two nails,nutshells on the sill,a stove made from a drum
brewhouse|in|steam under the beams,the sour smell of mash,a copper as big as a cottage
saddler's shop|in|straps on hooks,the smell of neat's-foot oil,a stuffed horse's head
wagon yard|in|a wheel without a rim,a hen in a cart,puddles with rainbows
gatehouse|at|a board of keys,the stamp of boots,a brazier of coals
harbour|in|masts like bare trees,crates of lemons,a shout in a foreign tongue
chapel|in|one candle in a niche,swallows under the eaves,worn flagstones
bridge|on|the brown water below,a carved date,a boy with a fishing rod
market|at|a pyramid of onions,the cry of the fish seller,a lost glove on a railing
library|in|a ladder on wheels,the hush of pages,an atlas left open
lighthouse|at|a winding stair,the boom of waves,a telescope on a stand
stone circle|at|lichen like old maps,a hare in the bracken,the wind in the gorse
cemetery|in|leaning crosses,ivy over an angel,fresh flowers in a jar
railway halt|at|rails humming faintly,a timetable behind glass,a bench with peeling paint
windmill|at|the groan of the sails,a view over three valleys,oats in the cracks of the floor
spring|at|cress in the runnel,a tin cup on a chain,moss like velvet
barn|in|hay to the roof,a broken plough,an owl on a beam
town hall|in|portraits of stern mayors,a box of petitions,a polished rail
castle ruin|at|a tower without a top,nettles in the hall,jackdaws overhead
vineyard|in|terraces of stone,a basket forgotten between the rows,wasps at the grapes
peat bog|on|black water,white tufts of cotton grass,a path of planks
hospital|in|a long white corridor,the squeak of a trolley,geraniums on the sill
theatre|in|dusty velvet,a painted forest,a ghost light on the stage
museum|in|a whale's jaw,birds under glass,a guard asleep on a chair
crossroads|at|a signpost with three arms,a milestone,a puddle full of sky
"""

PLACES = tuple(
    Place(name, preposition, tuple(details.split(",")))
    for name, preposition, details in (line.split("|") for line in _TABLE.strip().replace("\n    ", "").splitlines())
)
BY_NAME = {place.name: place for place in PLACES}
