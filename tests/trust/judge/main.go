// Judges chains as a crypto/tls client of this Go does, and makes them.
//
//	judge make > chains.json
//	judge verify chains.json
//	judge about
package main

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// chain is one case: what is sent and trusted are places in the list of certificates.
type chain struct {
	Name  string `json:"name"`
	Host  string `json:"host"`
	Sent  []int  `json:"sent"`
	Roots []int  `json:"roots"`
}

// book holds all cases, and each certificate once.
type book struct {
	Now          int64    `json:"now"`
	Certificates []string `json:"certificates"`
	Chains       []chain  `json:"chains"`
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// class is the kind of an error, by its type.
func class(err error) string {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var critical x509.UnhandledCriticalExtension
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &hostname):
		return "name"
	case errors.As(err, &unknown):
		return "unknown_authority"
	case errors.As(err, &critical):
		return "critical"
	case errors.As(err, &invalid):
		switch invalid.Reason {
		case x509.Expired:
			return "expired"
		case x509.NotAuthorizedToSign:
			return "may_not_sign"
		case x509.TooManyIntermediates:
			return "path_length"
		case x509.CANotAuthorizedForThisName:
			return "name_constraints"
		case x509.IncompatibleUsage:
			return "purpose"
		}
	}
	return "other: " + err.Error()
}

func (b *book) verify(c chain) string {
	var certs []*x509.Certificate
	der := func(place int) []byte {
		bytes, err := base64.StdEncoding.DecodeString(b.Certificates[place])
		check(err)
		return bytes
	}
	for _, place := range c.Sent {
		cert, err := x509.ParseCertificate(der(place))
		if err != nil {
			return "unreadable"
		}
		certs = append(certs, cert)
	}
	roots := x509.NewCertPool()
	for _, place := range c.Roots {
		roots.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der(place)}))
	}
	intermediates := x509.NewCertPool()
	for _, cert := range certs[1:] {
		intermediates.AddCert(cert)
	}
	_, err := certs[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		DNSName:       c.Host,
		CurrentTime:   time.Unix(b.Now, 0),
	})
	return class(err)
}

func print(value interface{}) {
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", " ")
	check(out.Encode(value))
}

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "make":
		print(makeBook())
	case len(os.Args) == 3 && os.Args[1] == "verify":
		text, err := os.ReadFile(os.Args[2])
		check(err)
		var b book
		check(json.Unmarshal(text, &b))
		said := map[string]string{}
		for _, c := range b.Chains {
			said[c.Name] = b.verify(c)
		}
		print(said)
	case len(os.Args) == 2 && os.Args[1] == "about":
		defaults := "none"
		if info, ok := debug.ReadBuildInfo(); ok {
			for _, setting := range info.Settings {
				if setting.Key == "DefaultGODEBUG" {
					defaults = setting.Value
				}
			}
		}
		fmt.Println(runtime.Version(), "DefaultGODEBUG="+defaults, "GODEBUG="+os.Getenv("GODEBUG"))
	default:
		check(errors.New("judge make | verify FILE | about"))
	}
}
