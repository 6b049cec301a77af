"""The proxy settings and URLs that Go programs and Pullpath are asked about."""

URLS = (
    "https://registry.corp.test/v2/",
    "https://registry.corp.test:5000/v2/",
    "http://registry.corp.test/v2/",
    "https://corp.test/v2/",
    "https://10.30.1.20/v2/",
    "https://[fd00::20]:5000/v2/",
    "https://localhost:5000/v2/",
    "http://127.3.2.1/v2/",
)

# Values of HTTPS_PROXY.
PROXIES = (
    "http://proxy.test:3128",
    "proxy.test:3128",
    "proxy.test",
    "10.0.0.8:3128",
    "10.0.0.8",
    "[fd00::8]:3128",
    "http://[fd00::8]",
    "http://[fe80::8%25eth0]:3128",
    "http://[10.0.0.8]:3128",
    "http://fd00::8",
    "http://fd00::8:3128",
    "http://[proxy.test:3128",
    "http://a:b:3128",
    "https://proxy.test",
    "HTTPS://Proxy.test:8443/",
    "socks5://proxy.test",
    "socks5://svc:pw@proxy.test:1081",
    "socks5h://proxy.test:1081",
    "socks://proxy.test:1081",
    "socks4://proxy.test:1081",
    "ftp://proxy.test:21",
    "ftp://svc:pw@proxy.test",
    "http:proxy.test:3128",
    "http:/proxy.test:3128",
    "http//proxy.test:3128",
    "http://",
    "http:///proxy",
    "http://:3128",
    "://proxy.test",
    ":3128",
    "//proxy.test:3128",
    "/proxy.test:3128",
    "*",
    "#",
    "direct",
    "DIRECT",
    " http://proxy.test:3128",
    "http://proxy.test:3128 ",
    "http://proxy.test: 3128",
    "http://proxy test:3128",
    "\"http://proxy.test:3128\"",
    "'http://proxy.test:3128'",
    "\u201chttp://proxy.test:3128\u201d",
    "http://proxy.test:3128,http://other.test:3128",
    "http://proxy.test;http://other.test",
    "http://proxy.test:99999",
    "http://proxy.test:0",
    "http://proxy.test:",
    "http://proxy.test:port",
    "http://proxy.test/path?query#fragment",
    "http://proxy.test:3128/a%zz",
    "http://proxy%2Etest:3128",
    "http://b\u00fccher.test:3128",
    "http://b%C3%BCcher.test:3128",
    "http://pro_xy.test:3128",
    "http://proxy.test:3128\t",
    "http://pr\x01oxy.test",
    "http://svc@proxy.test:3128",
    "http://svc:@proxy.test:3128",
    "http://:pw@proxy.test:3128",
    "http://@proxy.test:3128",
    "http://svc:pw@",
    "http://svc:p@ss@proxy.test:3128",
    "http://svc:p:ss@proxy.test:3128",
    "http://svc:p%40ss@proxy.test:3128",
    "http://svc:p%2Fss@proxy.test:3128",
    "http://corp%5Csvc:pw@proxy.test:3128",
    "http://corp\\svc:pw@proxy.test:3128",
    "svc:pw@proxy.test:3128",
    "svc:p^w@proxy.test:3128",
    "svc:p%zzw@proxy.test:3128",
) + tuple(f"http://svc:Su{c}mmer@proxy.test:3128" for c in "^%#/?|\"<> {}[]`\\!$&'()*+,;=~-._:@\u00fc") + (
    "http://svc:1/mmer@proxy.test:3128",
    "http://svc:22#mmer@proxy.test:3128",
    "http://svc:22?mmer@proxy.test:3128",
    "http://svc:%@proxy.test:3128",
    "http://svc:%4@proxy.test:3128",
    "http://svc:%zz@proxy.test:3128",
    "https://svc:Su^mmer@proxy.test:3128",
    "socks5://svc:Su^mmer@proxy.test:1080",
)

# Values of NO_PROXY, with a proxy for both schemes.
EXCEPTIONS = (
    "",
    "*",
    "a.test,*,b.test",
    "*.",
    "*.*",
    "*.corp.test",
    "**.corp.test",
    "*corp.test",
    "corp.test",
    ".corp.test",
    "..corp.test",
    "corp.test.",
    "registry.corp.test",
    "REGISTRY.Corp.Test",
    "registry.corp.test.",
    "registry.corp.test:443",
    "registry.corp.test:5000",
    "registry.corp.test:https",
    ".corp.test:5000",
    "*.corp.test:5000",
    "corp.test:",
    ":5000",
    "registry.corp.test/",
    "registry.corp.test/v2",
    "https://registry.corp.test",
    "http://registry.corp.test:5000",
    "a.test, registry.corp.test",
    "a.test registry.corp.test",
    "a.test;registry.corp.test",
    "a.test|registry.corp.test",
    "\ta.test ,\tregistry.corp.test\n",
    "'registry.corp.test'",
    "\"registry.corp.test\"",
    ",,registry.corp.test,",
    "egistry.corp.test",
    "test",
    ".test",
    "10.30.1.20",
    "10.30.1.20:443",
    "10.30.1.20:80",
    "10.30.1.20/32",
    "10.0.0.0/8",
    "10.0.0.0/8:443",
    "10.0.0.1/8",
    "10.0.0.0/33",
    "10.30.1.0-10.30.1.255",
    "10.30.1.*",
    "10.30.",
    "10.30",
    ".20",
    ".1.20",
    "*.1.20",
    "30.1.20",
    "0.0.0.0/0",
    "::/0",
    "fd00::/8",
    "fd00::20",
    "[fd00::20]",
    "[fd00::20]:5000",
    "[fd00::20]:443",
    "[fd00::]/8",
    "::ffff:10.30.1.20",
    "::ffff:10.0.0.0/104",
    "010.030.001.020",
    "localhost",
    "127.0.0.0/8",
    "b\u00fccher.test,registry.corp.test",
    "<local>",
)

HTTP = {"HTTP_PROXY": "http://proxy.test:3128", "HTTPS_PROXY": "http://proxy.test:3128"}


def settings():
    """Each setting, as the variables of an environment."""
    for value in PROXIES:
        yield {"HTTPS_PROXY": value}
    for value in EXCEPTIONS:
        yield HTTP | {"NO_PROXY": value}
    yield {"HTTP_PROXY": "http://proxy.test:3128"}
    yield {"ALL_PROXY": "http://proxy.test:3128"}
    yield {"all_proxy": "socks5://proxy.test:1080"}
    yield {"https_proxy": "http://lower.test:3128"}
    yield {"https_proxy": "http://lower.test:3128", "HTTPS_PROXY": "http://upper.test:3128"}
    yield {"https_proxy": "http://lower.test:3128", "HTTPS_PROXY": ""}
    yield {"https_proxy": "http://lower.test:3128", "HTTPS_PROXY": " "}
    yield {"Https_Proxy": "http://mixed.test:3128"}
    yield {"http_proxy": "http://lower.test:3128", "HTTPS_PROXY": "http://upper.test:3128"}
    yield HTTP | {"no_proxy": "registry.corp.test"}
    yield HTTP | {"no_proxy": "registry.corp.test", "NO_PROXY": "other.test"}
    yield HTTP | {"no_proxy": "registry.corp.test", "NO_PROXY": ""}
    yield HTTP | {"REQUEST_METHOD": "GET"}
    yield HTTP | {"REQUEST_METHOD": "GET", "NO_PROXY": "*"}
    yield {"http_proxy": "http://lower.test:3128", "REQUEST_METHOD": "GET"}
    yield {"HTTPS_PROXY": "http://proxy.test:3128", "REQUEST_METHOD": "GET"}
    yield {"HTTP_PROXY": "http://svc:p%zz@proxy.test:3128", "REQUEST_METHOD": "GET"}
