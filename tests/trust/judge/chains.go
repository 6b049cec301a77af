package main

import (
	"crypto"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
)

const host = "registry.example.com"

type writer struct {
	book
	places map[string]int
}

func (w *writer) place(certificates []*made) []int {
	all := []int{}
	for _, one := range certificates {
		text := base64.StdEncoding.EncodeToString(one.der)
		at, ok := w.places[text]
		if !ok {
			at = len(w.Certificates)
			w.places[text] = at
			w.Certificates = append(w.Certificates, text)
		}
		all = append(all, at)
	}
	return all
}

func (w *writer) add(name, host string, roots []*made, sent ...*made) {
	w.Chains = append(w.Chains, chain{name, host, w.place(sent), w.place(roots)})
}

type some = []*made

func exts(all ...pkix.Extension) []pkix.Extension { return all }

func root(s spec) *made {
	if s.name == "" && s.names == nil {
		s.name = "Root"
	}
	if s.key == "" {
		s.key = "p256 root"
	}
	if s.exts == nil && s.version != 1 {
		s.exts = exts(basic(true, -1), usage(certSign))
	}
	return s.make(nil)
}

func issuing(by *made, s spec) *made {
	if s.name == "" && s.names == nil {
		s.name = "Issuing"
	}
	if s.key == "" {
		s.key = "p256 issuing"
	}
	if s.exts == nil {
		s.exts = exts(basic(true, -1), usage(certSign))
	}
	return s.make(by)
}

func leaf(by *made, s spec) *made {
	if s.name == "" && s.names == nil {
		s.name = "leaf"
	}
	if s.key == "" {
		s.key = "p256 leaf"
	}
	if s.exts == nil {
		s.exts = exts(alt(dns(host)), purposes(forServers))
	}
	return s.make(by)
}

func makeBook() *book {
	w := &writer{book: book{Now: now.Unix()}, places: map[string]int{}}
	w.shapes()
	w.marks()
	w.dates()
	w.crossed()
	w.hosts()
	w.signatures()
	w.limits()
	w.odd()
	return &w.book
}

func (w *writer) shapes() {
	r := root(spec{})
	i := issuing(r, spec{})
	l := leaf(i, spec{})
	direct := leaf(r, spec{})
	w.add("plain", host, some{r}, l, i)
	w.add("direct", host, some{r}, direct)
	w.add("root-sent-too", host, some{r}, l, i, r)
	w.add("order-reversed", host, some{r}, l, r, i)
	other := root(spec{name: "Other", key: "p256 other"})
	w.add("stranger-sent-too", host, some{r}, l, other, i)
	w.add("intermediate-not-sent", host, some{r}, l)
	w.add("no-authority-known", host, some{other}, l, i)
	w.add("no-root-at-all", host, some{}, l, i)
	w.add("intermediate-is-a-root", host, some{i}, l)
	w.add("intermediate-is-a-root-and-sent", host, some{i}, l, i)
	w.add("leaf-is-a-root", host, some{l}, l)
	w.add("leaf-is-a-root-for-another-name", "other.example.com", some{l}, l)
	ca := spec{name: "self", key: "p256 leaf", exts: exts(basic(true, -1), alt(dns(host)))}
	w.add("self-signed-ca-trusted", host, some{ca.make(nil)}, ca.make(nil))
	self := ca.make(nil)
	w.add("self-signed-ca-is-the-root", host, some{self}, self)
	w.add("self-signed-ca-unknown", host, some{r}, self)
	ca.exts = exts(basic(false, -1), alt(dns(host)))
	self = ca.make(nil)
	w.add("self-signed-no-ca-is-the-root", host, some{self}, self)
	w.add("leaf-marked-as-ca", host, some{r}, leaf(r, spec{exts: exts(basic(true, -1), alt(dns(host)))}))
	twin := root(spec{key: "p256 twin"})
	w.add("root-of-same-name-and-other-key", host, some{twin}, direct)
	w.add("both-roots-of-that-name", host, some{twin, r}, direct)
	wrong := issuing(r, spec{key: "p256 wrong"})
	w.add("wrong-intermediate-before-the-right", host, some{r}, l, wrong, i)
	w.add("wrong-intermediate-alone", host, some{r}, l, wrong)
	w.add("no-key-identifiers", host, some{root(spec{noAuthKeys: true})}, leaf(r, spec{noAuthKeys: true}))
}

func (w *writer) marks() {
	for name, s := range map[string]spec{
		"root-v1":                       {version: 1},
		"root-without-basicconstraints": {exts: exts(usage(certSign))},
		"root-no-ca":                    {exts: exts(basic(false, -1))},
		"root-without-certsign":         {exts: exts(basic(true, -1), usage(signature))},
		"root-without-keyusage":         {exts: exts(basic(true, -1))},
		"root-pathlen-0-above-leaf":     {exts: exts(basic(true, 0), usage(certSign))},
	} {
		r := root(s)
		w.add(name, host, some{r}, leaf(r, spec{}))
	}
	short := root(spec{exts: exts(basic(true, 0), usage(certSign))})
	i := issuing(short, spec{})
	w.add("root-pathlen-0-above-intermediate", host, some{short}, leaf(i, spec{}), i)
	r := root(spec{})
	for name, e := range map[string][]pkix.Extension{
		"intermediate-no-ca":                    exts(basic(false, -1)),
		"intermediate-without-basicconstraints": exts(usage(certSign)),
		"intermediate-without-certsign":         exts(basic(true, -1), usage(signature)),
	} {
		i := issuing(r, spec{exts: e})
		w.add(name, host, some{r}, leaf(i, spec{}), i)
	}
	for name, path := range map[string]int{"pathlen-0-above-two": 0, "pathlen-1-above-two": 1} {
		upper := issuing(r, spec{name: "Upper", key: "p256 upper", exts: exts(basic(true, path))})
		lower := issuing(upper, spec{})
		w.add(name, host, some{r}, leaf(lower, spec{}), lower, upper)
	}
	w.add("critical-unknown-of-leaf", host, some{r}, leaf(r, spec{exts: exts(alt(dns(host)), ext(true, der(1), 1, 2, 3, 4))}))
	w.add("unknown-of-leaf", host, some{r}, leaf(r, spec{exts: exts(alt(dns(host)), ext(false, der(1), 1, 2, 3, 4))}))
	i = issuing(r, spec{exts: exts(basic(true, -1), ext(true, der(1), 1, 2, 3, 4))})
	w.add("critical-unknown-of-intermediate", host, some{r}, leaf(i, spec{}), i)
	policy := struct{ Policy asn1.ObjectIdentifier }{oid(1, 2, 3, 4, 5)}
	policies := ext(false, der([]interface{}{policy}), 2, 5, 29, 32)
	rules := struct {
		Require int `asn1:"tag:0"`
	}{0}
	i = issuing(r, spec{exts: exts(basic(true, -1), policies)})
	w.add("policies", host, some{r}, leaf(i, spec{}), i)
	i = issuing(r, spec{exts: exts(basic(true, -1), policies, ext(true, der(rules), 2, 5, 29, 36))})
	w.add("critical-policy-constraints", host, some{r}, leaf(i, spec{}), i)
	for name, ids := range map[string][]asn1.ObjectIdentifier{
		"for-clients": {forClients}, "for-any-purpose": {forClients, forAny}, "for-servers-and-more": {forCode, forServers},
	} {
		w.add(name, host, some{r}, leaf(r, spec{exts: exts(alt(dns(host)), purposes(ids...))}))
		i := issuing(r, spec{exts: exts(basic(true, -1), purposes(ids...))})
		w.add("intermediate-"+name, host, some{r}, leaf(i, spec{}), i)
	}
	code := root(spec{exts: exts(basic(true, -1), purposes(forCode))})
	w.add("root-for-code", host, some{code}, leaf(code, spec{}))
}

func (w *writer) dates() {
	r := root(spec{})
	w.add("leaf-expired", host, some{r}, leaf(r, spec{to: ended}))
	w.add("leaf-not-yet-valid", host, some{r}, leaf(r, spec{from: starts}))
	w.add("leaf-expired-is-a-root", host, some{leaf(r, spec{serial: 7, to: ended, key: "ed25519 l"})}, leaf(r, spec{to: ended}))
	w.add("leaf-by-generalizedtime", host, some{r}, leaf(r, spec{general: true}))
	w.add("leaf-at-its-last-second", host, some{r}, leaf(r, spec{to: now}))
	i := issuing(r, spec{to: ended})
	w.add("intermediate-expired", host, some{r}, leaf(i, spec{}), i)
	fresh := issuing(r, spec{})
	w.add("intermediate-expired-beside-a-fresh-one", host, some{r}, leaf(i, spec{}), i, fresh)
	old := root(spec{to: ended})
	w.add("root-expired", host, some{old}, leaf(old, spec{}))
	w.add("root-expired-beside-a-fresh-one", host, some{old, r}, leaf(old, spec{}))
	early := root(spec{from: starts})
	w.add("root-not-yet-valid", host, some{early}, leaf(early, spec{}))
}

func (w *writer) crossed() {
	old := root(spec{name: "Old Root", key: "p256 old", to: ended})
	fresh := root(spec{name: "New Root", key: "p256 new"})
	cross := issuing(old, spec{name: "New Root", key: "p256 new"})
	i := issuing(fresh, spec{})
	l := leaf(i, spec{})
	w.add("crossed-both-known", host, some{old, fresh}, l, i, cross)
	w.add("crossed-new-known", host, some{fresh}, l, i, cross)
	w.add("crossed-old-known", host, some{old}, l, i, cross)
	// Five authorities of one name, each signed by each other.
	var web some
	for a := 0; a < 5; a++ {
		by := root(spec{name: "Web", key: fmt.Sprint("p256 web", a)})
		for b := 0; b < 5; b++ {
			if a != b {
				web = append(web, issuing(by, spec{name: "Web", key: fmt.Sprint("p256 web", b)}))
			}
		}
	}
	r := root(spec{})
	of := leaf(web[0], spec{})
	w.add("web-of-cross-signatures", host, some{r}, append(some{of}, web...)...)
	w.add("web-of-cross-signatures-that-is-known", host, some{web[0]}, append(some{of}, web...)...)
}

func (w *writer) hosts() {
	r := root(spec{})
	named := func(name, host string, names ...asn1.RawValue) {
		w.add(name, host, some{r}, leaf(r, spec{exts: exts(alt(names...))}))
	}
	named("wildcard", "a.example.com", dns("*.example.com"))
	named("wildcard-two-labels", "a.b.example.com", dns("*.example.com"))
	named("wildcard-of-the-domain-itself", "example.com", dns("*.example.com"))
	named("wildcard-within-a-label", "registry.example.com", dns("r*.example.com"))
	named("wildcard-bare", "registry", dns("*"))
	named("name-in-capitals", "REGISTRY.Example.com", dns("registry.EXAMPLE.com"))
	named("name-with-final-dot", "registry.example.com.", dns(host))
	named("certificate-with-final-dot", host, dns(host+"."))
	named("name-with-underscore", "my_registry.example.com", dns("my_registry.example.com"))
	named("name-with-odd-characters", "a b", dns("A B"))
	named("another-name", host, dns("other.example.com"), ip("10.0.0.1"))
	named("address", "10.1.2.3", ip("10.1.2.3"))
	named("address-v6", "fd00::1", ip("fd00::1"))
	named("address-in-brackets", "[fd00::1]", ip("fd00::1"))
	named("address-as-a-name", "10.1.2.3", dns("10.1.2.3"))
	named("address-written-as-v6", "10.1.2.3", general(7, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x01\x02\x03"))
	named("beside-a-uri-and-mail", host, dns(host), general(6, "spiffe://example.com/ns/a"), general(1, "a@example.com"))
	w.add("common-name-only", host, some{r}, leaf(r, spec{name: host, exts: exts(purposes(forServers))}))
	w.add("no-name-at-all", host, some{r}, leaf(r, spec{exts: exts(purposes(forServers))}))
	w.add("critical-names-of-directories", host, some{r}, leaf(r, spec{exts: exts(altOf(true, directory("x")))}))
	printable := root(spec{names: text(asn1.TagPrintableString, "Root")})
	w.add("issuer-equal-in-words", host, some{printable}, leaf(r, spec{}))
	capital := root(spec{name: "ROOT"})
	w.add("issuer-in-capitals", host, some{capital}, leaf(r, spec{}))
}

func (w *writer) signatures() {
	plain := func(name, rootKey string, alg algorithm) {
		r := root(spec{key: rootKey})
		w.add(name, host, some{r}, leaf(r, spec{alg: alg}))
	}
	plain("rsa-2048", "rsa2048 a", algorithm{})
	plain("rsa-2048-sha384", "rsa2048 a", algorithm{hash: crypto.SHA384})
	plain("rsa-2048-sha512", "rsa2048 a", algorithm{hash: crypto.SHA512})
	plain("rsa-2048-pss", "rsa2048 a", algorithm{hash: crypto.SHA256, pss: true})
	plain("rsa-2048-sha1", "rsa2048 a", algorithm{hash: crypto.SHA1})
	plain("rsa-2048-md5", "rsa2048 a", algorithm{hash: crypto.MD5})
	plain("rsa-1024", "rsa1024 a", algorithm{})
	plain("rsa-1024-sha512", "rsa1024 a", algorithm{hash: crypto.SHA512})
	plain("rsa-1024-sha384", "rsa1024 a", algorithm{hash: crypto.SHA384})
	plain("rsa-1024-pss", "rsa1024 a", algorithm{hash: crypto.SHA256, pss: true})
	plain("rsa-1023", "rsa1023 a", algorithm{})
	plain("rsa-512", "rsa512 a", algorithm{})
	plain("p224", "p224 a", algorithm{})
	plain("p256-sha384", "p256 a", algorithm{hash: crypto.SHA384})
	plain("p256-sha1", "p256 a", algorithm{hash: crypto.SHA1})
	plain("p384", "p384 a", algorithm{hash: crypto.SHA384})
	plain("p384-sha256", "p384 a", algorithm{})
	plain("p521", "p521 a", algorithm{hash: crypto.SHA512})
	plain("ed25519", "ed25519 a", algorithm{})
	r := root(spec{})
	w.add("leaf-rsa-1024", host, some{r}, leaf(r, spec{key: "rsa1024 leaf"}))
	w.add("leaf-rsa-512", host, some{r}, leaf(r, spec{key: "rsa512 leaf"}))
	w.add("leaf-ed25519", host, some{r}, leaf(r, spec{key: "ed25519 leaf"}))
	sha1 := root(spec{key: "rsa2048 a", alg: algorithm{hash: crypto.SHA1}})
	w.add("root-signed-by-sha1", host, some{sha1}, leaf(sha1, spec{}))
	bad := leaf(r, spec{})
	bad.der = append([]byte{}, bad.der...)
	bad.der[len(bad.der)-1] ^= 1
	w.add("signature-of-another", host, some{r}, bad)
}

func (w *writer) limits() {
	limited := func(name, host string, permitted, excluded []asn1.RawValue, names ...asn1.RawValue) {
		r := root(spec{})
		i := issuing(r, spec{exts: exts(basic(true, -1), constraints(permitted, excluded))})
		w.add(name, host, some{r}, leaf(i, spec{exts: exts(alt(names...))}), i)
	}
	type raw = []asn1.RawValue
	limited("permitted", host, raw{dns("example.com")}, nil, dns(host))
	limited("permitted-in-capitals", host, raw{dns("EXAMPLE.com")}, nil, dns(host))
	limited("permitted-others", host, raw{dns("example.net")}, nil, dns(host))
	limited("permitted-one-of-two-names", host, raw{dns("example.com")}, nil, dns(host), dns("a.example.net"))
	limited("permitted-not-the-end-of-a-label", "myexample.com", raw{dns("example.com")}, nil, dns("myexample.com"))
	limited("permitted-below-only", "example.com", raw{dns(".example.com")}, nil, dns("example.com"))
	limited("excluded", host, nil, raw{dns("registry.example.com")}, dns(host))
	limited("excluded-others", host, nil, raw{dns("example.net")}, dns(host))
	limited("excluded-below-a-wildcard", "a.example.com", nil, raw{dns("secret.example.com")}, dns("*.example.com"))
	limited("permitted-network", "10.1.2.3", raw{net4("10.1.0.0/16")}, nil, ip("10.1.2.3"))
	limited("permitted-other-network", "10.1.2.3", raw{net4("10.2.0.0/16")}, nil, ip("10.1.2.3"))
	limited("excluded-network", "10.1.2.3", nil, raw{net4("10.0.0.0/8")}, ip("10.1.2.3"))
	limited("names-permitted-and-an-address", "10.1.2.3", raw{dns("example.com")}, nil, ip("10.1.2.3"))
	limited("critical-directory-constraint", host, raw{directory("x")}, nil, dns(host))
	r := root(spec{exts: exts(basic(true, -1), constraints(raw{dns("example.net")}, nil))})
	w.add("root-with-constraints", host, some{r}, leaf(r, spec{}))
}

func (w *writer) odd() {
	r := root(spec{})
	w.add("negative-serial", host, some{r}, leaf(r, spec{serial: -5}))
	negative := root(spec{serial: -5})
	w.add("negative-serial-of-root", host, some{negative}, leaf(r, spec{}))
	w.add("duplicate-extension", host, some{r}, leaf(r, spec{exts: exts(alt(dns(host)), alt(dns(host)))}))
	w.add("critical-key-identifier", host, some{r}, leaf(r, spec{noAuthKeys: true, exts: exts(alt(dns(host)), ext(true, der(identify(key("p256 leaf"))), 2, 5, 29, 14))}))
	w.add("trailing-data", host, some{r}, leaf(r, spec{tail: []byte{5, 0}}))
	other := identifier(key("p256 root"), algorithm{hash: crypto.SHA512})
	w.add("outer-algorithm-differs", host, some{r}, leaf(r, spec{outer: &other}))
	w.add("version-4", host, some{r}, leaf(r, spec{version: 4}))
	curve := struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{pkix.AlgorithmIdentifier{Algorithm: oid(1, 2, 840, 10045, 2, 1), Parameters: asn1.RawValue{FullBytes: der(oid(1, 3, 132, 0, 10))}}, asn1.BitString{Bytes: append([]byte{4}, make([]byte, 64)...), BitLength: 520}}
	w.add("curve-that-go-has-not", host, some{r}, leaf(r, spec{spki: der(curve)}))
	curve.Algorithm = pkix.AlgorithmIdentifier{Algorithm: oid(1, 2, 840, 113549, 1, 1, 1)}
	w.add("rsa-without-null", host, some{r}, leaf(r, spec{spki: der(curve)}))
	w.add("name-in-latin1", host, some{r}, leaf(r, spec{names: text(asn1.TagT61String, "Caf\xe9")}))
	w.add("name-in-visiblestring", host, some{r}, leaf(r, spec{names: text(26, "leaf")}))
	w.add("name-not-printable", host, some{r}, leaf(r, spec{names: text(asn1.TagPrintableString, "leaf@home")}))
	w.add("name-is-a-number", host, some{r}, leaf(r, spec{names: rdn(5)}))
	w.add("address-of-five-bytes", host, some{r}, leaf(r, spec{exts: exts(alt(dns(host), general(7, "12345")))}))
	w.add("broken-intermediate-sent-too", host, some{r}, leaf(r, spec{}), issuing(r, spec{tail: []byte{0}}))
}
