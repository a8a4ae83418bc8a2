"""The rest of the story words: weather, manners, moods, sayings, comparisons, small talk."""

from __future__ import annotations

from potstill.lab.text.wordlists import phrases, words

WORDS: dict[str, tuple[str, ...]] = {
    "trait": words("""
        patient stubborn cheerful shy proud careful forgetful curious gruff gentle talkative solemn thrifty generous
        clumsy brave timid quick-witted dreamy honest sly restless lazy diligent merry jealous modest vain tidy
        blunt wary tender grumpy loyal impatient thoughtful sceptical superstitious hot-headed quiet
        """),
    "manner": words("""
        slowly quickly quietly gladly carefully wearily proudly shyly firmly gently hastily calmly boldly awkwardly
        thoughtfully cheerfully reluctantly patiently silently stiffly eagerly absently warily kindly
        """),
    "mood": words("""
        tired hopeful uneasy cross relieved lonely glad ashamed restless content puzzled anxious grateful bitter
        light-hearted drowsy hungry suspicious brave homesick bewildered
        """),
    "animal": words("""
        fox heron cat mule goose badger owl trout hedgehog crow weasel donkey swallow beetle hare otter toad ram
        sparrow hound moth snail stork calf lizard magpie ferret
        """),
    "food": phrases(
        """
        bread and dripping/a bowl of lentils/cold potatoes/an apple/a heel of cheese/pea soup/two boiled eggs/a
        slice of rye bread/pickled herring/a pancake/porridge with salt/a handful of walnuts/barley broth/a baked
        onion/stewed pears/a mug of buttermilk/nettle tea/dried figs
        """
    ),
    "relative": phrases(
        """
        mother/father/grandmother/grandfather/aunt/uncle/elder brother/younger sister/cousin/godmother/first
        master/old neighbour/niece
        """
    ),
    "colour": words("grey yellow scarlet blue pale green brown violet white golden black silver rusty"),
    "plant": words("""
        nettles brambles ferns poppies reeds thistles primroses heather clover ivy hops cowslips foxgloves mint
        sorrel willows alders hawthorns elders larches
        """),
    "body": words("hands shoulders eyes knees fingers elbows boots brows palms"),
    "sound": phrases(
        """
        a dog <bark>/a cart <rattle>/someone <whistle>/a door <bang>/a cock <crow>/a bell <strike>/a child <laugh>/a
        saw <rasp>/a kettle <sing>/a horse <snort>/rooks <quarrel+>/water <drip>/a shutter <creak>/a goose <hiss>/an
        axe <ring> out/somebody <hum> a hymn/hens <cackle+>/a chain <clank>
        """
    ),
    "weather": phrases(
        """
        the rain <drum> on the [roofs|leaves|cobbles]/a thin fog <lie> over the [fields|river|lanes]/the sun <shine>
        on the [wet|white|dusty] [road|walls]/a~ [cold|sharp|warm|salty] wind <come> from the
        [north|hills|sea|marshes]/the frost <glitter> on the #plant#/#colour# clouds <gather+> above the
        [woods|town|hills]/the snow <creak> under every step/the air <smell> of [smoke|hay|rain|apples|snow]/the
        heat <hang> over the [yards|meadows|roofs]/a drizzle <soften> the edges of everything/hail <rattle> against
        the shutters/the puddles <have+> a skin of ice
        """
    ),
    "season": phrases(
        "spring/late summer/autumn/the first week of winter/harvest time/the dry month/the week of the fair"
    ),
    "proverb": phrases(
        """
        a borrowed #thing# is heavier than an own one/whoever feeds the #animal# must not count the crumbs/two
        [cold|idle| stubborn] #body# [make|light] no fire/[haste|envy|worry] is a poor #bystander#/even the #animal#
        knows [its way home|when to be silent]/no [river|road|winter] asks for your [name|leave|opinion]/what
        [rusts|leaks| limps] today [breaks|sinks|falls] tomorrow/a~ [kind|short|late] [word|answer]
        [mends|opens|warms] more than a [hammer|key|stove]/the #animal# [sleeps|eats|sings] before it
        [works|pays|promises]/[bread|trust|silence] is [baked|bought|lost] [only once|one day at a time]/you cannot
        [salt|shear|iron] the same #animal# twice/[better a~ #trait# #animal# than a~ #trait# neighbour|better
        #mood# than late]
        """
    ),
    "thing": words("ladder umbrella kettle spade boat coat saw cradle wheelbarrow hat lamp bucket fiddle pot"),
    "like": phrases(
        """
        like a~ #animal# [in the rain|at a window|under a stone|on market day|that has been fed]/as
        [quiet|warm|cold|slow| proud|stiff|pale|busy] as a~ #animal#/like somebody who [has|carries|hides|seeks] a~
        #object#/like a~ #colour# #object# [in an empty room|left in the rain|somebody has dropped]
        """
    ),
    "gossip": phrases(
        """
        the #trait# #bystander# [has lost|wants|has bought] a~ #colour# #object#/I hear that the #bystander# [is to
        marry the #bystander#|was seen with a~ #object#|has run away with #food#]/#opinion#/#opinion#/they say the
        [mayor|priest|ferry|bridge] [wants a new roof|is for sale|talks in its sleep|owes money to everyone]/my
        #relative# [saw a~ #animal# in the #thing#|never ate #food#|once walked to the sea and back]/prices are up
        again, [salt|wool|tin|paper] most of all/the [well|mill pond|cellar] [is|was] [full of
        frogs|dry|frozen|haunted]/ it will [rain|snow|clear up|blow] before [noon|Sunday|the week is out]/nobody
        [repairs|returns|remembers] a~ #object# these days/the #plant# are [early|late|everywhere|finer than last
        year] [this year|by the river]/we had #food# three days running/a~ #trait# stranger asked for the
        [doctor|road|post] [yesterday|this morning]
        """
    ),
    "opinion": phrases(
        """
        #proverb#/I never trusted a~ #trait# #bystander#/one should not keep #food# beside a~ #object#/a~
        #bystander# is worth [two|ten] #bystander# friends/the #object# is the finest [gift|invention|weapon] of
        all/[rain|war|love|soap] makes everybody #mood#/if I were a~ #animal#, I would #wish#/there is a time for
        #food# and a time for #food#
        """
    ),
    "wish": phrases(
        """
        sleep in a~ #object#/live on #food#/avoid every #bystander#/dig under the #plant#/never leave the
        [house|nest|river]/ bite the #bystander#
        """
    ),
    "because": phrases(
        """
        my #relative# [left|gave|promised] it to me/it reminds me of [the sea|my #relative#|better years]/I
        [use|need] it [every day|on feast days|when it rains]/I paid [too much|three days of work|a~ #animal#] for
        it/nothing else keeps [the #animal# away|my papers dry|the door shut]/I [won|found|mended] it myself/the
        #thing# is no good without it
        """
    ),
    "memory": phrases(
        """
        the [winter|summer|year] when [the river froze|the bridge fell|the comet came|they had only #food# to
        eat|the #animal# got into the church]/what {his} #relative# used to say: #proverb#/the [smell|taste|sound]
        of [#food#|rain on a~ #object#|that old kitchen|ripe #plant#]/a~ #colour# #object# {he} had
        [lost|broken|wanted] as a child/the [first|last] time {he} had been [#mood#|so #mood#]/a song about a~
        #animal# and a~ #bystander#
        """
    ),
}
