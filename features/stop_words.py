"""Stop words: frequent function words by language, which say nothing about what a query looks for."""

from __future__ import annotations

_LISTS = {
    "arabic": "في من على الى عن مع هذا هذه ذلك تلك التي الذي ما لا ان كان كانت هو هي او ثم قد كل بين بعد قبل عند و",
    "czech": (
        "a aby ale ani až bez by byl byla bylo být co či do i jak jako je jeho jejich jen ještě již jsem jsou k kde "
        "kdo když která které který ku má mezi na nad ne nebo než o od po pod pro proto před při s se si tak také "
        "tato ten to tu u už v ve však z za ze že"
    ),
    "danish": (
        "af alle at blev de dem den der det dette du efter eller en end er et for fra ham han har havde hun hvad hvor "
        "i ikke ind jeg kan man med meget men mig nogle nu når og også om op os over på sig skal som så til ud under "
        "var vi vil ved"
    ),
    "dutch": (
        "aan al als bij dan dat de deze die dit door een en er haar had heb hebben heeft het hij hoe hun ik in is je "
        "kan maar me meer met mijn naar niet nog nu of om onder ook op over te tot uit van veel voor was wat we wel "
        "werd wie wij wordt worden ze zich zij zijn zo zonder"
    ),
    "english": (
        "a about after all an and are as at be been before but by can could did do does for from had has have he her "
        "him his how i if in into is it its me my no not of on or our s she should so some than that the their them "
        "then there these they this those to up us was we were what when where which who why will with would you your"
    ),
    "finnish": (
        "ei en ennen että hän he ja jo joka jos jotka kaikki kanssa kun kuin me mikä mitä mutta myös ne niin nyt ole "
        "olen oli on ovat se sekä sen siitä sitä tai tämä te tässä vain vai voi"
    ),
    "french": (
        "à au aux avec ce ces cette comme d dans de des du elle en est et eux il ils je l la le les leur leurs lui ma "
        "mais me mes mon n ne nos notre nous on ou où par pas pour plus qu que qui s sa sans se ses si son sont sur "
        "ta te tes toi ton tu un une vos votre vous y"
    ),
    "german": (
        "aber als am an auch auf aus bei bin bis da das dass dem den der des die dies diese dieser dieses du ein eine "
        "einem einen einer eines er es für hat haben ich ihr ihre im in ist ja kann mein mit nach nicht noch nur oder "
        "ohne sich sie sind so über um und uns unter vom von vor war was wenn wer wie wir wird wo zu zum zur"
    ),
    "greek": (
        "ο η το οι τα του της των τον την τους τις στο στη στην στον στα στις και για με από σε να που πως θα δεν μη "
        "είναι ένα ένας μια ως ή αλλά αν ότι κατά μετά"
    ),
    "hindi": "का के की को में है हैं से और पर ने यह वह ये वे एक इस उस कि जो तो ही भी था थी थे हो लिए कर नहीं या",
    "hungarian": (
        "a az egy és hogy nem is ez azt ezt ami aki de ha meg már még csak vagy van volt lesz kell mint mert minden "
        "után előtt között fel le ki be el"
    ),
    "indonesian": (
        "yang di ke dari dan untuk dengan pada ini itu adalah atau oleh sebagai dalam akan tidak juga ada bisa para "
        "serta karena saya kami kita mereka dia"
    ),
    "italian": (
        "a ad al alla alle ai agli anche che chi ci come con da dal dalla dei del della delle degli di e ed è gli ha "
        "ho i il in io l la le lo ma mi nel nella non o per più quale questo questa se si sono su sul sulla ti tra un "
        "una uno"
    ),
    "norwegian": (
        "av alle at ble da de dem den der det dette du eller en enn er et etter for fra ha han har hun hva hvor i "
        "ikke jeg kan man med men meg når nå og også om opp oss over på seg skal som så til under ut var ved vi vil å"
    ),
    "polish": (
        "a aby ale bez być był była było co czy dla do gdy i ich ja jak jako je jego jej jest już kiedy kto która "
        "które który ma na nad nie o od oraz po pod przez przy są się ta tak także te tego tej ten to tu tym w we z "
        "za ze że"
    ),
    "portuguese": (
        "a à ao aos as às com como da das de do dos e é ela ele em entre era essa esse esta este eu foi há isso isto "
        "já mais mas me meu minha na nas não no nos o os ou para pela pelo por qual que se sem ser seu sua são também "
        "te tem um uma"
    ),
    "romanian": (
        "a ai al ale am ar are au că ce cea cel cu cum da de din dar după e el ea este eu fi fost în îi îl îmi la lui "
        "mai ne noi nu o pe pentru prin sa să se si și sunt un una unde unei unui va"
    ),
    "russian": (
        "а без бы был была были было быть в вас во вот все вы где да для до его ее если есть еще же за и из или им их "
        "к как ко когда кто ли мне мы на над не нет ни но о об он она они от по под при с со так также то только ты у "
        "что чтобы эта эти это этот я"
    ),
    "spanish": (
        "a al ante como con cual de del desde donde e el él ella ellos en entre era es esa ese esta este esto fue ha "
        "hay la las le les lo los más me mi muy no nos o para pero por que qué se sin sobre su sus te tu un una uno "
        "unos y ya yo"
    ),
    "swedish": (
        "alla att av blev de dem den denna det detta dig du där efter ej eller en ett för från ha han har hade hon "
        "hur i in inte jag kan man med men mig mot ni nu när och om oss på sig ska som så till under upp ut var vi "
        "vid vill är över"
    ),
    "turkish": (
        "acaba ama bana ben bir bu bunu çok da daha de diye en gibi hem her hiç için ile ise işte ki kim mı mi mu mü "
        "ne neden o olan olarak onu sen siz şu ve veya ya yani"
    ),
}
STOP_WORDS = {language: frozenset(words.split()) for language, words in _LISTS.items()}
"""Language, as Snowball names it -> its stop words, in lower case."""
