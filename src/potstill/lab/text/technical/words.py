"""The words of the technical texts: what tools work on, what settings are about, what goes wrong."""

from __future__ import annotations

from potstill.lab.text.wordlists import words

WORDS: dict[str, tuple[str, ...]] = {
    "noun": words("""
        record packet sample block frame ledger index snapshot queue channel sensor valve pump tank heater filter
        motor relay probe meter beacon camera printer scanner router gateway cluster replica shard partition volume
        archive bundle module patch branch token key certificate session cookie profile account invoice order parcel
        route station platform turbine conveyor furnace chiller compressor nozzle spindle bearing gear belt rotor
        antenna amplifier battery charger inverter panel meter gauge display keypad buffer cache table column row
        cell vector matrix grid mesh contour layer tile texture glyph palette caption chapter label tag note task
        job worker agent broker ticket alert report chart log trace event signal pulse wave spectrum curve
        """),
    "adjective": words("""
        idle stale broken empty duplicate hidden local remote shared private temporary permanent pending nested
        sorted compressed signed encrypted partial complete raw clean damaged unused oversized recent obsolete
        visible locked open closed cold warm inner outer primary secondary spare faulty noisy slow fast external
        internal manual automatic binary plain numeric optional mandatory
        """),
    "verb": words("""
        copy move merge split sort list count check verify repair compress expand encrypt sign publish fetch upload
        rename label group filter sample scan print export import convert archive restore rotate trim index mirror
        align calibrate measure drain fill flush inspect lock unlock pause resume replay resize schedule validate
        compare annotate balance throttle purge collect
        """),
    "place": tuple(
        """the main hall|the server room|the pump house|the north wing|the annex|the control room|the basement
        the workshop|the attic|the cold store|the packing hall|the archive|the laboratory|the west tower
        the gate house|the boiler room|the cellar""".replace("\n        ", "|").split("|")
    ),
    "person": ("the operator", "the administrator", "the technician", "the shift leader", "the owner of the file"),
    "folder": words("data logs inbox outbox cache backup spool drafts results images plans queue export store"),
    "suffix": words("csv txt log json dat bin cfg tsv idx tar"),
    "state": words("ready busy waiting paused stopped failing draining armed blocked finished offline degraded"),
    "manner": words("quickly silently once twice slowly safely again later first completely automatically"),
    "when": (
        "when the [service|device|program] starts",
        "after a restart",
        "at the end of a run",
        "at midnight",
        "while the #noun# is #state#",
        "on the first start",
        "as soon as the #noun# is #state#",
        "before every run",
        "whenever a~ #noun# [arrives|is removed|is added|changes]",
        "if the #noun# reports a~ #adjective# #noun#",
    ),
    "reason": (
        "because the #noun# [is read|is written|is checked] only #when#",
        "so that a~ #adjective# #noun# [does no harm|is never used|is found early]",
        "since the #noun# and the #noun# share [a lock|a cable|a clock|one budget|the same disk]",
        "because [older|newer] versions [count|read|write|skip] #adjective# parts differently",
        "so that #person# can [see|stop|repeat|undo] the [step|run|change]",
    ),
    "note": (
        "This has no effect #when#.",
        "[Change|Set|Raise] it with care, #reason#.",
        "It is read #when#.",
        "It is safe to leave it alone, #reason#.",
        "Most [sites|users|teams] never need it, #reason#.",
        "It was [added|renamed|made stricter] in version {version}.",
        "#remark#",
        "#remark#",
        "#remark#",
        "It replaces the #adjective# #noun# of version {version}, #reason#.",
        "Its value is shown beside the #noun#, and in red #when#.",
    ),
    "remark": (
        "Do not [touch|open|replace] the #noun# #when#.",
        "A~ #adjective# #noun# [counts|is treated] as #state#.",
        "[Ask|Tell|Call] #person# before you #verb# the #adjective# #noun#.",
        "The #noun# in #place# must be #state# first.",
        "Never #verb# a~ #adjective# #noun# #when#.",
        "The #noun# stays #state# [until|unless] #person# [restarts|replaces|unlocks] the #adjective# #noun#.",
        "Where there is no #adjective# #noun#, the #noun# of #place# is used instead.",
        "Version {version} can #verb# the #noun# and the #noun# together, #reason#.",
        "#person# will #verb# the #adjective# #noun# #when#.",
        "The #noun# and its #noun# are checked #when#.",
        "A~ #noun# that is #state# may be #adjective# [as well|at the same time], #reason#.",
    ),
    "purpose": (
        "{verbs} #adjective# {nouns} [and tells you which ones were left alone|#when#|and writes a short report]",
        "{verbs} the {nouns} of a folder [#when#|one after another|without changing the originals]",
        "helps #person# to {verb} {nouns} [#when#|in #place#|by name, by size or by age]",
        "looks for #adjective# {nouns} and {verbs} them [#when#|if asked to|one at a time]",
    ),
    "option": (
        "#verb# [only |]#adjective# {nouns}",
        "do not #verb# [anything|the #adjective# {nouns}|{nouns} that are #state#]",
        "stop at the first #adjective# {noun}",
        "show [what would be done|every step|the slowest {nouns}]",
        "write the [report|list|log] to a file instead of the screen",
        "treat #adjective# {nouns} as #adjective# ones",
        "ask before each {noun} is [changed|moved|removed]",
        "follow links to other folders",
        "#verb# each {noun} twice",
        "keep the #adjective# {nouns} [#when#|where they are]",
        "#verb# in the order of [name|size|age|arrival]",
        "use the #noun# in #place# rather than the nearest one",
    ),
    "effect": (
        "It [takes|needs] longer, #reason#.",
        "Nothing is written then.",
        "The others are left as they are.",
        "May be given more than once.",
        "Cannot be combined with --{other}.",
        "Implies --{other}.",
        "The default is to #verb# them.",
        "Off by default, #reason#.",
        "Use it #when#.",
        "It has no short form.",
        "The {nouns} that remain are listed at the end.",
        "Useful #when#.",
    ),
}
