package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"time"

	_ "crypto/md5"
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// now is the time of all verdicts.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

var (
	past    = now.AddDate(-5, 0, 0)
	ended   = now.AddDate(0, -1, 0)
	starts  = now.AddDate(0, 1, 0)
	future  = now.AddDate(5, 0, 0)
	keys    = map[string]crypto.Signer{}
	serials = int64(1000)
)

// algorithm is how a certificate is signed.
type algorithm struct {
	hash crypto.Hash
	pss  bool
}

// spec is a certificate to be made; what is left out is as usual.
type spec struct {
	name       string
	key        string
	names      []byte // subject, DER
	issuer     []byte // issuer, DER
	from, to   time.Time
	version    int
	serial     int64
	alg        algorithm
	exts       []pkix.Extension
	general    bool // GeneralizedTime
	outer      *pkix.AlgorithmIdentifier
	spki       []byte
	tail       []byte
	self       bool
	noAuthKeys bool
}

// made is a certificate with its key.
type made struct {
	der  []byte
	spec spec
}

func der(value interface{}, params ...string) []byte {
	param := ""
	if len(params) > 0 {
		param = params[0]
	}
	bytes, err := asn1.MarshalWithParams(value, param)
	check(err)
	return bytes
}

func oid(numbers ...int) asn1.ObjectIdentifier { return numbers }

// key is made at its first use: "rsa2048 a", "p256 b".
func key(name string) crypto.Signer {
	if keys[name] != nil {
		return keys[name]
	}
	var kind string
	var err error
	fmt.Sscan(name, &kind)
	var made crypto.Signer
	curves := map[string]elliptic.Curve{"p224": elliptic.P224(), "p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521()}
	switch {
	case curves[kind] != nil:
		made, err = ecdsa.GenerateKey(curves[kind], rand.Reader)
	case kind == "ed25519":
		_, made, err = ed25519.GenerateKey(rand.Reader)
	default:
		bits := 0
		fmt.Sscanf(kind, "rsa%d", &bits)
		made, err = rsa.GenerateKey(rand.Reader, bits)
	}
	check(err)
	keys[name] = made
	return made
}

// text is a name of one value of an ASN.1 type.
func text(tag int, value string) []byte {
	return rdn(asn1.RawValue{Tag: tag, Bytes: []byte(value)})
}

func rdn(value interface{}) []byte {
	type attribute struct {
		Type  asn1.ObjectIdentifier
		Value interface{}
	}
	one := der(attribute{oid(2, 5, 4, 3), value})
	set := der(asn1.RawValue{Tag: 17, IsCompound: true, Bytes: one})
	return der(asn1.RawValue{Tag: 16, IsCompound: true, Bytes: set})
}

func identifier(signer crypto.Signer, alg algorithm) pkix.AlgorithmIdentifier {
	null := asn1.NullRawValue
	hashes := map[crypto.Hash]asn1.ObjectIdentifier{
		crypto.SHA256: oid(2, 16, 840, 1, 101, 3, 4, 2, 1),
		crypto.SHA384: oid(2, 16, 840, 1, 101, 3, 4, 2, 2),
		crypto.SHA512: oid(2, 16, 840, 1, 101, 3, 4, 2, 3),
	}
	switch signer.(type) {
	case *rsa.PrivateKey:
		if alg.pss {
			hash := pkix.AlgorithmIdentifier{Algorithm: hashes[alg.hash], Parameters: null}
			params := struct {
				Hash pkix.AlgorithmIdentifier `asn1:"explicit,tag:0"`
				MGF  pkix.AlgorithmIdentifier `asn1:"explicit,tag:1"`
				Salt int                      `asn1:"explicit,tag:2"`
			}{hash, pkix.AlgorithmIdentifier{Algorithm: oid(1, 2, 840, 113549, 1, 1, 8), Parameters: asn1.RawValue{FullBytes: der(hash)}}, alg.hash.Size()}
			return pkix.AlgorithmIdentifier{Algorithm: oid(1, 2, 840, 113549, 1, 1, 10), Parameters: asn1.RawValue{FullBytes: der(params)}}
		}
		last := map[crypto.Hash]int{crypto.MD5: 4, crypto.SHA1: 5, crypto.SHA256: 11, crypto.SHA384: 12, crypto.SHA512: 13}
		return pkix.AlgorithmIdentifier{Algorithm: oid(1, 2, 840, 113549, 1, 1, last[alg.hash]), Parameters: null}
	case *ecdsa.PrivateKey:
		if alg.hash == crypto.SHA1 {
			return pkix.AlgorithmIdentifier{Algorithm: oid(1, 2, 840, 10045, 4, 1)}
		}
		last := map[crypto.Hash]int{crypto.SHA256: 2, crypto.SHA384: 3, crypto.SHA512: 4}
		return pkix.AlgorithmIdentifier{Algorithm: oid(1, 2, 840, 10045, 4, 3, last[alg.hash])}
	}
	return pkix.AlgorithmIdentifier{Algorithm: oid(1, 3, 101, 112)}
}

func sign(signer crypto.Signer, alg algorithm, tbs []byte) []byte {
	digest, opts := tbs, crypto.SignerOpts(crypto.Hash(0))
	if _, ok := signer.(ed25519.PrivateKey); !ok {
		hash := alg.hash.New()
		hash.Write(tbs)
		digest, opts = hash.Sum(nil), alg.hash
		if alg.pss {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: alg.hash}
		}
	}
	signature, err := signer.Sign(rand.Reader, digest, opts)
	check(err)
	return signature
}

func identify(signer crypto.Signer) []byte {
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	check(err)
	sum := sha1.Sum(spki)
	return sum[:]
}

// make makes a certificate signed by its issuer, or by itself.
func (s spec) make(issuer *made) *made {
	signer := key(s.key)
	by := signer
	if s.names == nil {
		s.names = text(asn1.TagUTF8String, s.name)
	}
	if issuer == nil {
		s.issuer = s.names
	} else {
		by = key(issuer.spec.key)
		if s.issuer == nil {
			s.issuer = issuer.spec.names
		}
	}
	if s.from.IsZero() {
		s.from = past
	}
	if s.to.IsZero() {
		s.to = future
	}
	if s.version == 0 {
		s.version = 3
	}
	if s.serial == 0 {
		serials++
		s.serial = serials
	}
	if s.alg.hash == 0 {
		s.alg.hash = crypto.SHA256
	}
	if s.spki == nil {
		spki, err := x509.MarshalPKIXPublicKey(signer.Public())
		check(err)
		s.spki = spki
	}
	if s.version == 3 && !s.noAuthKeys {
		s.exts = append(s.exts, ext(false, der(identify(signer)), 2, 5, 29, 14))
		if issuer != nil {
			ids := struct {
				ID []byte `asn1:"optional,tag:0"`
			}{identify(by)}
			s.exts = append(s.exts, ext(false, der(ids), 2, 5, 29, 35))
		}
	}
	format := "utc"
	if s.general {
		format = "generalized"
	}
	times := append(der(s.from, format), der(s.to, format)...)
	alg := identifier(by, s.alg)
	var tbs []byte
	if s.version > 1 {
		tbs = append(tbs, der(asn1.RawValue{Class: 2, Tag: 0, IsCompound: true, Bytes: der(s.version - 1)})...)
	}
	for _, part := range [][]byte{der(big.NewInt(s.serial)), der(alg), s.issuer, der(asn1.RawValue{Tag: 16, IsCompound: true, Bytes: times}), s.names, s.spki} {
		tbs = append(tbs, part...)
	}
	if s.version == 3 {
		tbs = append(tbs, der(asn1.RawValue{Class: 2, Tag: 3, IsCompound: true, Bytes: der(s.exts)})...)
	}
	tbs = der(asn1.RawValue{Tag: 16, IsCompound: true, Bytes: tbs})
	if s.outer == nil {
		s.outer = &alg
	}
	whole := append([]byte{}, tbs...)
	whole = append(whole, der(*s.outer)...)
	signature := sign(by, s.alg, tbs)
	whole = append(whole, der(asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)})...)
	whole = der(asn1.RawValue{Tag: 16, IsCompound: true, Bytes: whole})
	return &made{append(whole, s.tail...), s}
}

func ext(critical bool, value []byte, id ...int) pkix.Extension {
	return pkix.Extension{Id: id, Critical: critical, Value: value}
}

// basic is basicConstraints; a path of -1 is none.
func basic(ca bool, path int) pkix.Extension {
	return ext(true, der(struct {
		CA   bool `asn1:"optional"`
		Path int  `asn1:"optional,default:-1"`
	}{ca, path}), 2, 5, 29, 19)
}

// usage is keyUsage of one byte.
func usage(bits byte) pkix.Extension {
	return ext(true, der(asn1.BitString{Bytes: []byte{bits}, BitLength: 8}), 2, 5, 29, 15)
}

const (
	certSign  = 0x04
	signature = 0x80
)

func purposes(ids ...asn1.ObjectIdentifier) pkix.Extension {
	return ext(false, der(ids), 2, 5, 29, 37)
}

var (
	forServers = oid(1, 3, 6, 1, 5, 5, 7, 3, 1)
	forClients = oid(1, 3, 6, 1, 5, 5, 7, 3, 2)
	forCode    = oid(1, 3, 6, 1, 5, 5, 7, 3, 3)
	forAny     = oid(2, 5, 29, 37, 0)
)

func general(tag int, value string) asn1.RawValue {
	return asn1.RawValue{Class: 2, Tag: tag, Bytes: []byte(value)}
}

func dns(name string) asn1.RawValue { return general(2, name) }
func ip(address string) asn1.RawValue {
	parsed := net.ParseIP(address)
	if four := parsed.To4(); four != nil {
		parsed = four
	}
	return general(7, string(parsed))
}

func alt(names ...asn1.RawValue) pkix.Extension { return altOf(false, names...) }
func altOf(critical bool, names ...asn1.RawValue) pkix.Extension {
	return ext(critical, der(names), 2, 5, 29, 17)
}

func directory(name string) asn1.RawValue {
	return asn1.RawValue{Class: 2, Tag: 4, IsCompound: true, Bytes: text(asn1.TagUTF8String, name)}
}

// constraints is nameConstraints.
func constraints(permitted, excluded []asn1.RawValue) pkix.Extension {
	type subtree struct{ Base asn1.RawValue }
	trees := func(tag int, names []asn1.RawValue) []byte {
		var all []byte
		for _, name := range names {
			all = append(all, der(subtree{name})...)
		}
		if all == nil {
			return nil
		}
		return der(asn1.RawValue{Class: 2, Tag: tag, IsCompound: true, Bytes: all})
	}
	both := append(trees(0, permitted), trees(1, excluded)...)
	return ext(true, der(asn1.RawValue{Tag: 16, IsCompound: true, Bytes: both}), 2, 5, 29, 30)
}

// net4 is a network with its mask.
func net4(cidr string) asn1.RawValue {
	_, network, err := net.ParseCIDR(cidr)
	check(err)
	return general(7, string(network.IP)+string(network.Mask))
}
