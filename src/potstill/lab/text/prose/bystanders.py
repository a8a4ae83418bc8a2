"""Those who pass through a story without a part in it, what they do, and what they do it with."""

from __future__ import annotations

from potstill.lab.text.wordlists import phrases, words

WORDS: dict[str, tuple[str, ...]] = {
    "bystander": words("""
        beggar nun soldier sailor carter pedlar butcher widow midwife clerk drummer juggler gravedigger lodger
        notary acrobat errand-boy governess chimney-sweep rat-catcher goatherd laundress pilgrim hunter tinker
        organist juror bargee verger cook cellist dentist orphan bishop barber groom grocer milkmaid porter stranger
        surveyor poacher hawker cyclist photographer magician botanist recruit bride umbrella-mender stoker
        pastry-cook sexton
        """),
    "object": words("""
        accordion barrel basin bonnet bouquet brick bridle broth candle cannon carpet cartwheel cauldron chain chalk
        cheese coin cork crate crutch cucumber curtain-rod cutlass deckchair dictionary drainpipe easel egg envelope
        feather fence fishhook flag footstool fork gramophone hammock harp hatbox hinge hoop icicle ink-pot jar jug
        knot lemon lettuce lobster magnet mattress melon mirror mousetrap mushroom napkin needle notebook oar onion
        oyster padlock pane parasol parrot passport pebble pencil perambulator piano pillow pineapple pistol plank
        plate postcard pumpkin quill raft razor ribbon rope saddle sausage scissors-case screw shell shoehorn shovel
        skate slate sock spade sponge stamp statue suitcase sundial sword tablecloth tambourine telescope ticket
        trombone trunk turnip tyre valise veil vest violin wallet wardrobe wheel whip wig yarn-ball zither
        """),
    "material": words("tin wax straw velvet paper plaster ivory amber slate bone felt cork copper oak wicker"),
    "item": (
        "a~ #object#",
        "a~ #colour# #object#",
        "a~ #material# #object#",
        "half a~ #object#",
        "{his} #object#",
        "somebody else's #object#",
        "two #colour# feathers",
        "an armful of #plant#",
        "#food#",
    ),
    "act": phrases(
        """
        <sell> #item#/<carry> #item# on {his} head/<paint> #item# #colour#/<bury> #item# under the #plant#/<argue>
        with a~ #bystander# about #item#/<drop> #item# and <swear>/<bargain> for #item#/<count> coins into a~
        #object#/<feed> #food# to a~ #animal#/<dance> with a~ #object#/<draw> a~ #animal# on a wall/<hang> #item#
        from a branch/<chase> a~ #animal# round a~ #object#/<polish> #item# with spit/<push> #item# in a
        barrow/<read> a letter and <blush>/<shave> a~ #animal#/<sharpen> a knife on a doorstep/<write> figures on a~
        #object#/<tie> #item# to a~ #animal#/<sneeze> seven times/<bow> to a~ #animal#/<scatter> seed/<measure>
        #item# with a string/<practise> the same three notes/<weep> over #item#/<stand> on one leg/<throw> #item#
        into the water/<whistle> through a gap in the teeth/<balance> #item# on #item#/ <stare> at the sky/<mend>
        #item# with wire/<preach> to a row of #object# boxes/<roll> #item# downhill/<wash> #item# in a
        puddle/<wager> #item# on a race of snails/<try> to swallow #food# whole/<lose> #item# and <find>
        #item#/<hide> #item# in {his} sleeve/<recite> a poem on #plant#
        """
    ),
    "passing": (
        "a~ [#trait#|#mood#|#colour#-eyed] #bystander# #act#",
        "a~ #bystander# and a~ #trait# #bystander# <play+> cards for a~ #object#",
        "one #bystander# #act#, another #act#",
        "a~ #bystander# <ask> the way to the #object# [fair|museum|shop]",
        "a~ #animal# with #item# in its mouth <run> past",
        "the [oldest|youngest|loudest] #bystander# in town #act#",
    ),
}
