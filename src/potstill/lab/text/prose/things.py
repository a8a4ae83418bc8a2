"""Names of people, and things that can be lost, lent and found."""

from __future__ import annotations

from potstill.lab.text.wordlists import words

WOMEN = words("""
        Ada Agnes Alma Amina Anouk Asta Beatrix Bettina Brida Carla Cecily Clara Dagny Dalia Daria Dora Edda Elena
        Elsa Esme Etta Fadila Farah Flora Freya Gerda Gilda Greta Hanna Hedda Helga Henrike Ida Ilse Imke Ines Irma
        Isolde Ivana Jadwiga Jana Johanna Judith Katya Kirsten Klara Lale Leda Leonie Lidia Lina Lotte Lucia Ludmila
        Magda Maren Marta Matilda Mira Nadia Nela Noor Odile Olga Orla Paula Petra Philippa Ragna Renata Rika Rosa
        Runa Sabine Selma Sigrid Silvia Sonja Tamar Tessa Thea Tilda Ulla Una Vera Viola Wanda Wilma Xenia Yara
        Ysolde Zelda Zora
        """)
MEN = words("""
        Abel Adem Alaric Albin Anselm Anton Arne Arvid Bastian Bela Benno Bertil Boris Bruno Casimir Caspar Cemal
        Conrad Cyril Damian Detlef Dirk Edgar Egon Eino Emil Enzo Erwin Eskil Fabian Felix Ferenc Florian Gaspard
        Georg Gideon Gregor Gustav Hakon Halvar Hamid Hannes Hector Henrik Hugo Igor Isak Ivo Jakob Janek Jasper
        Joachim Jonas Josef Julius Kaspar Kilian Knut Konrad Lars Laszlo Lennart Leopold Linus Lorenz Ludwig Magnus
        Malik Marek Matthias Milan Moritz Nils Oleg Orhan Oskar Otto Pavel Peer Quentin Radek Rasmus Rolf Rufus
        Samir Sander Simeon Stellan Tarik Theodor Tobias Tomas Ulrich Vaclav Valentin Viktor Wenzel Willem Yusuf
        Zoltan
        """)

#: What things are made of, with the things.
MADE_OF: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        words("brass copper iron tin silver bronze pewter steel"),
        words("""
        kettle lantern bell key compass candlestick thimble buckle bucket sieve ladle padlock whistle trowel teapot
        funnel weathercock snuffbox locket medal anchor spoon goblet trumpet cowbell
        """),
    ),
    (
        words("oak pear-wood cherry walnut ash beech willow elm cedar"),
        words("""
        flute chest ladder stool cradle spinning-wheel walking-stick yoke rake broom mask drum pipe chessboard
        picture-frame tray box trough sledge doll butter-mould music-stand puppet comb
        """),
    ),
    (
        words("linen woollen silk velvet canvas felt cotton"),
        words("scarf banner sack shawl curtain pouch hat cloak ribbon tent sail bag cushion glove kerchief"),
    ),
    (
        words("clay porcelain stone marble glass"),
        words("jug bowl vase bottle inkwell pitcher urn beaker mortar dish lamp paperweight jar bust"),
    ),
    (
        words("leather-bound folded yellowed sealed ink-stained hand-drawn"),
        words("map letter almanac songbook diary will recipe deed newspaper poem ledger sketch"),
    ),
)
LOOKS = words("""
        old cracked borrowed small heavy painted battered plain narrow tall mended dented carved curious handsome
        scorched dusty polished chipped faded crooked splendid humble enormous tiny faithful ugly spotted slender
        twisted lopsided
        """)
