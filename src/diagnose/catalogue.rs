//! The catalogue of causes: their codes, and what is known of each before anything was observed.
//!
//! A code is a metric label, a JSON value and the name of its documentation at once. It is never
//! renamed and never used again for something else.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::level::Severity;
use Detected::{ByTransfer, Later, Now};

macro_rules! causes {
    ($($area:literal {
        $($cause:ident = $code:literal, $severity:ident, $detected:expr, [$($root:ident),*];
          $title:literal
          symptom $symptom:literal
          cause $what:literal
          tell $tell:literal
          fix $fix:literal)*
    })*) => {
        /// Why a pull fails, is slow, or is at risk.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
        pub enum Cause {
            $($(
                #[doc = $title]
                #[serde(rename = $code)]
                $cause,
            )*)*
        }

        impl Cause {
            /// All causes, in the order of the catalogue.
            pub const ALL: &[Self] = &[$($(Self::$cause),*),*];

            /// The stable code.
            pub fn code(self) -> &'static str {
                self.entry().code
            }

            pub fn entry(self) -> &'static Entry {
                match self {
                    $($(Self::$cause => const { &Entry {
                        code: $code,
                        area: $area,
                        severity: Grade::$severity.severity(),
                        leaves_undecided: matches!(Grade::$severity, Grade::Undecided),
                        title: $title,
                        symptom: $symptom,
                        cause: $what,
                        tell: $tell,
                        fix: $fix,
                        masked_by: &[$(Cause::$root),*],
                        detected: $detected,
                    } }),*),*
                }
            }
        }
    };
}

causes! {
    "Names" {
        DnsNxdomain = "dns_nxdomain", Critical, Now, [AuthRealmUnreachable, RedirectBlob];
        "The host name does not exist in DNS"
        symptom "`dial tcp: lookup registry.example.com: no such host`"
        cause "The host in the image's name is misspelled, or the name is in a private zone that this network's resolver does not serve."
        tell "Every server answers NXDOMAIN for the name as written. If only some do, the cause is dns_split_horizon."
        fix "Compare the host in the image's name with the registry's documentation, and correct it. If it is a private name, associate its private zone with this VPC, or forward the zone to the servers that have it."
        DnsNodata = "dns_nodata", Critical, Now, [AuthRealmUnreachable, RedirectBlob];
        "The host name has no address of the required family"
        symptom "`lookup registry.example.com: no such host`, although `dig` shows that the name exists"
        cause "The name has records of another type only, for instance AAAA where only IPv4 is used, or a CNAME that leads to a name without addresses."
        tell "The answer is NOERROR without A or AAAA records (RFC 2308, NODATA)."
        fix "Give the name an A or AAAA record, or fix the name that its CNAME leads to."
        DnsTimeout = "dns_timeout", Critical, Now, [AuthRealmUnreachable, RedirectBlob];
        "Name servers do not answer"
        symptom "`lookup registry.example.com on 10.0.0.2:53: read udp ...: i/o timeout`"
        cause "The server is down, or a security group, network ACL or missing route drops UDP port 53 on the path."
        tell "No answer over UDP arrives within the resolver's own timeout. If one server of several is silent, it is a warning: a pull waits for that server first, by default 5 s each time."
        fix "Check the security group and the route to the server (UDP and TCP port 53; on Huawei Cloud, egress to 100.125.0.0/16), or remove the dead server from the node's resolv.conf."
        DnsServerUnreachable = "dns_server_unreachable", Critical, Now, [AuthRealmUnreachable, RedirectBlob];
        "Name servers can't be reached"
        symptom "`lookup registry.example.com on 10.0.0.2:53: ... connection refused` or `network is unreachable`"
        cause "Nothing listens on the server's port 53, or this machine has no route to it."
        tell "The kernel reports ICMP port unreachable, or no route, for the query itself."
        fix "Start the name server, or point the node's resolv.conf at one that runs. If there is no route to it, add the route."
        DnsServfail = "dns_servfail", Critical, Now, [AuthRealmUnreachable, RedirectBlob];
        "Name servers fail to look up this name (SERVFAIL)"
        symptom "`lookup registry.example.com: server misbehaving`"
        cause "The server could not get the answer itself: its forwarder is unreachable, or DNSSEC validation fails."
        tell "Every server queried answers SERVFAIL."
        fix "Check the log of that name server for this name; then its forwarders, and the DNSSEC chain of the zone."
        DnsRefused = "dns_refused", Critical, Now, [AuthRealmUnreachable, RedirectBlob];
        "Name servers refuse to answer this client (REFUSED)"
        symptom "`lookup registry.example.com: server misbehaving`"
        cause "The server does not serve clients of this network, or does not serve this zone."
        tell "Every server queried answers REFUSED."
        fix "Allow this subnet in the server's access list, or use the VPC's own resolver."
        DnsError = "dns_error", Critical, Now, [AuthRealmUnreachable, RedirectBlob];
        "Name servers send an unusable answer"
        symptom "`lookup registry.example.com: server misbehaving` or `cannot unmarshal DNS message`"
        cause "The answer has an unusual response code, belongs to another query, or was damaged in transit."
        tell "The evidence has the response code, or what is wrong with the message."
        fix "Query the server from this machine with `dig @SERVER NAME`, and fix or replace the server."
        DnsSlow5s = "dns_slow_5s", Warning, Now, [];
        "One of the two DNS queries (A or AAAA) gets no answer"
        symptom "Pulls start 5 or 10 seconds late; `nslookup` is fast"
        cause "A client sends the A and AAAA queries together, and one of them gets no answer: a server or firewall drops AAAA, or two packets from one port race in conntrack. A Go client waits its whole timeout for the missing answer, each time."
        tell "The same server answers one family and stays silent on the other."
        fix "Make the server answer AAAA queries; an empty answer is enough. In pods, use NodeLocal DNSCache; raise nf_conntrack_max where the table is full."
        DnsSearchLeak = "dns_search_leak", Warning, Now, [];
        "A search domain answers in place of the name as written"
        symptom "A wrong address, or `x509: certificate is valid for ...`, in pods only"
        cause "ndots is large (5 in pods), so the resolver first tries the name with each search domain appended, and a wildcard record in one of them answers."
        tell "The full name that answered is not the name as written. It is critical, and the cause of tls_name, if the server found there has a certificate for neither name. A name without dots, or one that ends in .svc, is meant to be completed and is not reported."
        fix "Remove the wildcard record from the search domain. The kubelet's own pull uses the node's resolv.conf: check the search list there too."
        DnsPodNodeDiff = "dns_pod_node_diff", Warning, Later, [];
        "Pods and nodes resolve the name differently"
        symptom "The name resolves in a pod and the kubelet's pull fails with `no such host`, or the reverse"
        cause "A pod queries CoreDNS; the kubelet and containerd query the servers in the node's resolv.conf."
        tell "The same query from both networks gets different answers."
        fix "Fix the node's resolver; the pods' resolver plays no part in a pull."
        DnsSplitHorizon = "dns_split_horizon", Warning, Now, [AuthRealmUnreachable, RedirectBlob];
        "Name servers return different answers for the same host name"
        symptom "Some pulls use the public network or fail and others don't, or all do since a server was added"
        cause "One name server has the private zone and another does not. Which server is queried first decides where the pull goes."
        tell "For the same query, one server returns NXDOMAIN or a public address, and another a private address. Two public addresses are load balancing and are not reported."
        fix "Make all servers in resolv.conf serve the same view: forward the private zone on those that lack it, or remove those servers from the list."
        DnsHijack = "dns_hijack", Critical, Now, [];
        "The DNS answer is not an address of the registry"
        symptom "`dial tcp 162.125.32.13:443: i/o timeout` for a registry that is not at that address"
        cause "Answers for well-known registries are forged in transit (reported for networks in mainland China)."
        tell "The name is that of a public registry, every address in the answer is in a network of the companies named in reports of forged answers (none of them serves a registry), and the leg fails there. Other forged answers look like tcp_timeout or tls_name."
        fix "Copy the image to a registry in your region (on Huawei Cloud: SWR, SoftWare Repository for Container) and pull it from there. Do not install any authority's certificate to get past the forged answer."
        DnsStale = "dns_stale", Critical, Now, [];
        "The hosts file has an address that does not answer; DNS has another"
        symptom "A timeout or `no route to host`, although the name resolves to another address elsewhere"
        cause "The hosts file is read before any name server, and its entry is outdated."
        tell "The address is from the hosts file and nothing answers there. The name servers, which a pull does not query for this name, return another address. If the entry agrees with them, or the port is closed, the connection's own cause is reported: tcp_timeout, tcp_refused."
        fix "Correct or remove the entry in the node's /etc/hosts."
    }
    "Reaching the host" {
        TcpTimeout = "tcp_timeout", Critical, Now, [AuthRealmUnreachable, RedirectBlob, NoEgress, AddressOverlap, DnsStale, DnsHijack];
        "The server does not answer connection attempts"
        symptom "`dial tcp 1.2.3.4:443: i/o timeout`; Docker: `request canceled while waiting for connection`"
        cause "There is no route to the address (no SNAT rule or EIP for this subnet, no peering route, no return route), or a security group, network ACL or firewall drops the packets."
        tell "At every address tried, the SYN gets no SYN-ACK, no RST and no ICMP error."
        fix "Public address: give this subnet egress, with an SNAT (source NAT) rule on the NAT gateway and a route to it, or with an EIP (Elastic IP). On CCE Turbo clusters the node subnet counts for pulls. Private address: add the routes on both sides of the peering, Direct Connect or VPN, and open the security group of the far side. Addresses in 100.125.0.0/16 and 198.19.128.0/17 are Huawei Cloud's services and VPC endpoints: the security group must let TCP 443 out to them. Then check the egress rules on this side."
        TcpRefused = "tcp_refused", Critical, Now, [AuthRealmUnreachable, RedirectBlob, DnsHijack];
        "The server refuses the connection"
        symptom "`dial tcp 1.2.3.4:443: connect: connection refused`"
        cause "The host is reached and nothing listens on the port, or a firewall answers in its place."
        tell "A RST or ICMP port unreachable arrives at once. A firewall's own answer often arrives faster than the host could answer."
        fix "Check the port in the image's name, and that the registry or its load balancer listens on it. If it does, ask the firewall's owner, with the times in the evidence."
        TcpReset = "tcp_reset", Critical, Now, [];
        "The connection is cut before the server answers"
        symptom "`read: connection reset by peer` or `EOF` while waiting for an answer"
        cause "The server, a load balancer or a filter closes the connection instead of answering the request."
        tell "A RST or FIN arrives after connect and TLS have succeeded and before the answer."
        fix "Check the log of the registry, or of the load balancer in front of it, for this moment. A filter that inspects requests leaves no entry there."
        TcpProhibited = "tcp_prohibited", Critical, Now, [AuthRealmUnreachable, RedirectBlob, DnsStale, DnsHijack];
        "A router or firewall on the path prohibits the connection"
        symptom "`connect: no route to host` or `connect: permission denied`"
        cause "A router or firewall answers with ICMP administratively prohibited."
        tell "The socket's error queue has the ICMP type and code, and the address that sent it."
        fix "Ask the owner of the host that sent the ICMP error to let this traffic through."
        LocalPolicy = "local_policy", Critical, Now, [AuthRealmUnreachable, RedirectBlob, DnsStale, DnsHijack];
        "This machine's own policy forbids the connection"
        symptom "`connect: operation not permitted` or `permission denied`"
        cause "netfilter, an eBPF program of the CNI plugin (NetworkPolicy), or a prohibit or blackhole route on this host rejects the connection before it leaves."
        tell "connect(2) fails at once with EPERM, EACCES or EINVAL, and no ICMP error arrives."
        fix "Find the rule with `ip route get ADDRESS`, `nft list ruleset` and the NetworkPolicies of this pod, and allow the connection there."
        NoLocalAddress = "no_local_address", Critical, Now, [AuthRealmUnreachable, RedirectBlob, DnsStale, DnsHijack];
        "This host has no local address or port to connect from"
        symptom "`connect: cannot assign requested address`"
        cause "This host has no address of that family, or all local ports to that server are in use."
        tell "connect(2) fails with EADDRNOTAVAIL or EAFNOSUPPORT."
        fix "IPv4: count the connections to that server (`ss -tan`), and widen net.ipv4.ip_local_port_range. IPv6: give the host an address, or remove the AAAA record."
        NetUnreachable = "net_unreachable", Critical, Now, [AuthRealmUnreachable, RedirectBlob, NoEgress, AddressOverlap, DnsStale, DnsHijack];
        "This host or a router has no route to the server"
        symptom "`connect: network is unreachable`"
        cause "The routing table of this host, or a router on the path, has no route for the address."
        tell "connect(2) fails with ENETUNREACH. If the evidence has an ICMP error, a router sent it."
        fix "Run `ip route get ADDRESS` on this host, and add the route or a default route."
        HostUnreachable = "host_unreachable", Critical, Now, [AuthRealmUnreachable, RedirectBlob, DnsStale, DnsHijack];
        "The host at this address can't be reached"
        symptom "`connect: no route to host`"
        cause "The last router gets no answer from the host (it is down, or the address is wrong), or this machine has an unreachable route for it."
        tell "connect(2) fails with EHOSTUNREACH, without an ICMP code that means a filter."
        fix "Check that the address in the DNS answer is the registry's and that the host is up."
        AddressPartlyDead = "address_partly_dead", Warning, Now, [];
        "Some addresses of the host name do not work"
        symptom "Pulls sometimes fail or start late"
        cause "The name has several addresses, and some of them do not answer."
        tell "Each address is tried on its own; those of the same family give different results."
        fix "Remove the dead addresses from DNS, or fix the hosts behind them."
        NetUnreachV6 = "net_unreach_v6", Warning, Now, [];
        "IPv6 is tried first and has no working route"
        symptom "`dial tcp [2a06:...]:443: connect: network is unreachable`"
        cause "The name has an AAAA record, and this host has an IPv6 address without a working route."
        tell "The IPv6 attempts fail at once while IPv4 works, and a dual-stack client tries IPv6 first."
        fix "Fix the IPv6 route, or remove this host's IPv6 address or the AAAA record."
        V6Blackhole = "v6_blackhole", Warning, Now, [];
        "IPv6 is tried first and its packets are lost"
        symptom "Every connection of a pull starts 300 ms late"
        cause "IPv6 packets are lost on the path. A dual-stack client waits before it falls back to IPv4 (RFC 8305; 300 ms in Go)."
        tell "SYNs over IPv6 are not answered while IPv4 works, and a dual-stack client tries IPv6 first."
        fix "Fix the IPv6 path, or remove this host's IPv6 address or the AAAA record."
        HttpTimeout = "http_timeout", Critical, Now, [MtuBlackhole];
        "The server accepts the request and does not answer in time"
        symptom "`context deadline exceeded (Client.Timeout exceeded while awaiting headers)`"
        cause "The server is overloaded or waits for another server behind it; or the path loses large packets and passes small ones."
        tell "Connect and TLS succeed, and no answer, or only a part of it, arrives in time. Small segments (see mtu_blackhole) did not help."
        fix "Check the server's own log and load. If small answers arrive and large ones never do, check the MTU of the path."
        SnatExhaust = "snat_exhaust", Warning, Later, [];
        "The NAT gateway has no ports or sessions left"
        symptom "Occasional timeouts under load; a retry works"
        cause "Many connections to one address and port share few SNAT (source NAT) addresses, or the gateway's session limit is reached."
        tell "Connection timeouts rise with the load, on all nodes behind one gateway."
        fix "Add EIPs (Elastic IPs) to the SNAT rule of the NAT gateway. Or use a larger gateway type, or a VPC endpoint for the registry."
        ConntrackFull = "conntrack_full", Warning, Later, [];
        "The node's connection table (conntrack) is full"
        symptom "`nf_conntrack: table full, dropping packet` in the node's kernel log; timeouts on that node only"
        cause "The node has more connections than net.netfilter.nf_conntrack_max allows."
        tell "One node differs from its neighbors; its own counters show it."
        fix "Raise net.netfilter.nf_conntrack_max on that node, and find out what opens so many connections."
        MtuBlackhole = "mtu_blackhole", Critical, Now, [];
        "Large packets are lost on the path (MTU)"
        symptom "`net/http: TLS handshake timeout`; or the manifest arrives and layers stall"
        cause "A link on the path (VPN, overlay, Direct Connect) has a smaller MTU, and the ICMP message that reports it is dropped."
        tell "An exchange hangs after it had started normally. Pullpath repeats it at the same address with the socket's TCP_MAXSEG lowered, with the usual size, and lowered again: fail, pass, fail, pass in turn. A single change could be chance, so anything less is not reported."
        fix "Clamp the MSS on the tunnel's gateway, or set the interface's MTU to the tunnel's; or let ICMP type 3 code 4 (IPv6: packet too big) through."
        ProxyMiss = "proxy_miss", Critical, Now, [];
        "The proxy settings do not work for this host"
        symptom "`proxyconnect tcp: dial tcp ...: connect: connection refused`, or `Forbidden` and `Proxy Authentication Required` without the registry's own error message"
        cause "HTTPS_PROXY and NO_PROXY of containerd's service do not fit this host, or the proxy is down or refuses the host."
        tell "Pullpath connects to the proxy as Go does, with TLS if its URL is https://, and the proxy does not connect it to the host. The evidence shows which variable named the proxy, and which entry of NO_PROXY matched or that none did; with --compare-direct, also the result of the same check without the proxy. A host that NO_PROXY excludes from the proxy and that can't be reached directly is a warning."
        fix "Add the registry, token and storage hosts to NO_PROXY in containerd's systemd drop-in, or fix the proxy; then restart containerd. CIDRs in NO_PROXY match only addresses in image names, never host names."
        ProxyUnknown = "proxy_unknown", Undecided, Now, [];
        "Pullpath can't determine whether the proxy works for this pull"
        symptom "No message of its own"
        cause "HTTPS_PROXY or HTTP_PROXY names a proxy with socks5://, which Go and therefore containerd can use; or one with https:// whose TLS can't be judged here; or one with a scheme that builds of Go read in different ways (`ftp://`)."
        tell "The scheme of the proxy's URL shows it, and nothing is tried then. Or the TLS of the proxy is undecided, as for `tls_undecided`; or the proxy's certificate is not valid and `skip_verify` is set, so that containerd sends the proxy its user and password and Pullpath does not. Whether a pull would succeed is unknown."
        fix "Try the pull on the node (`crictl pull IMAGE`), or give Pullpath an http:// proxy."
        ProxyUnneeded = "proxy_unneeded", Info, Now, [];
        "The pull uses a proxy that it does not need"
        symptom "None; pulls may be slower than the path allows"
        cause "The hosts can be reached directly, and NO_PROXY does not name them."
        tell "With --compare-direct, the check succeeds both with and without the proxy."
        fix "No action is needed. To bypass the proxy, add these hosts to NO_PROXY."
        Fw403 = "fw_403", Critical, Now, [];
        "A filter or allow-list refuses this client before the registry (403)"
        symptom "`unexpected status from HEAD request ...: 403 Forbidden`"
        cause "An allow-list of client addresses, a web filter, or the policy of a VPC endpoint answers 403."
        tell "The answer is 403 without a challenge and without a registry's error body. A registry would request credentials, or answer DENIED."
        fix "Add this network's public address (that of its Elastic IP or NAT gateway) to the registry's allow-list, or the registry to the filter's."
    }
    "TLS and time" {
        TlsUnknownCa = "tls_unknown_ca", Critical, Now, [DnsHijack];
        "The certificate is signed by an authority that is not trusted here"
        symptom "`x509: certificate signed by unknown authority`"
        cause "The registry has a certificate of a private authority, a proxy on the path substitutes its own, the server does not send its intermediate certificate, or this host's CA bundle is old (EulerOS 2.9 removed some roots)."
        tell "The evidence has the chain as presented, its issuer and fingerprint, and the roots in use. This cause is not reported if no root could be loaded."
        fix "Get the authority's certificate from its owner, compare its fingerprint with the one in the evidence over another channel than this network, and add it to the node's trust store or to `ca` in containerd's certs.d. Never install what the server itself sends without that comparison."
        TlsIntermediate = "tls_intermediate", Critical, Now, [DnsHijack];
        "The server does not send its intermediate certificate"
        symptom "`x509: certificate signed by unknown authority`, while browsers accept the certificate"
        cause "The server is set up with its own certificate only, or with a wrong one above it. Browsers download or remember the missing certificate; containerd does not."
        tell "The issuer of the last certificate is neither among those sent nor among the roots, and that certificate states where its issuer's can be downloaded. The issuer may still be a root that only has to be trusted, so the confidence is medium. It is high if a certificate with the issuer's name was sent that did not sign."
        fix "Have the server's owner append the issuer's certificate to the server's own in the file that the server sends (`fullchain.pem`, not `cert.pem`)."
        TlsRootExpired = "tls_root_expired", Critical, Now, [ClockSkew];
        "The root certificate of the chain has expired"
        symptom "`x509: certificate has expired or is not yet valid`, while the server's certificate is valid"
        cause "The CA bundle, `--ca-file` or `ca` in hosts.toml has an old certificate of the authority, which has expired; the authority now uses another. Go, unlike others, rejects a chain to an expired root."
        tell "A root with the issuer's name and key is present, outside its validity. The evidence names it, its file and its date."
        fix "Update the node's CA bundle (package ca-certificates), or put the authority's current certificate into the file named in the evidence; then restart containerd."
        TlsCaUnfit = "tls_ca_unfit", Critical, Now, [];
        "An authority in the chain is not allowed to sign this certificate"
        symptom "`x509: invalid signature: parent certificate cannot sign this kind of certificate`, `x509: too many intermediates for path length constraint`, `x509: a root or intermediate certificate is not authorized to sign for this name`"
        cause "The authority's certificate is not marked as one (basicConstraints CA:TRUE), its keyUsage lacks keyCertSign, its path length is too short, or its name constraints exclude the name. Some tools create such roots, and OpenSSL accepts some of them where Go does not."
        tell "The evidence names the certificate, whether it was sent or is a root, and what it lacks."
        fix "Have the authority's owner reissue its certificate with basicConstraints CA:TRUE and keyUsage keyCertSign, with room for the intermediates and names below, and replace it where the evidence names it."
        TlsDefaultCertificate = "tls_default_certificate", Critical, Now, [];
        "The server sends an ingress controller's default certificate"
        symptom "`x509: certificate is valid for ingress.local, not HOST`, or `certificate signed by unknown authority`"
        cause "The ingress controller has no certificate for this name: no Ingress with a TLS Secret names the host, or that Secret is missing or can't be read. Or the name leads to another cluster's ingress."
        tell "The subject is that of a controller's own default (`Kubernetes Ingress Controller Fake Certificate`, `TRAEFIK DEFAULT CERT`, `NGINXIngressController`)."
        fix "Give the registry's Ingress a TLS Secret for this host (spec.tls, in its own namespace). Never trust the default certificate: it is regenerated at each start, or every cluster has the same."
        TlsLeafTrusted = "tls_leaf_trusted", Warning, Now, [];
        "The server's own certificate is trusted instead of its authority's"
        symptom "None yet; `x509: certificate signed by unknown authority` after the next renewal"
        cause "The server's certificate (`openssl s_client` shows it first) was installed in place of its authority's. Go accepts a certificate that is itself a root, and checks no other."
        tell "The very certificate that the server sent is among the roots."
        fix "Put the authority's certificate into the file named in the evidence before the server's is renewed."
        TlsUndecided = "tls_undecided", Undecided, Now, [DnsHijack];
        "Pullpath can't determine whether containerd accepts this TLS"
        symptom "None, or `remote error: tls: handshake failure`"
        cause "The server offers, or its certificates are made with, something that some builds of containerd accept and others don't (depending on their Go release and its GODEBUG defaults), or that Pullpath's own TLS lacks: AES-CBC, RSA key exchange, 3DES, RSA keys below 2048 bits, TLS 1.1."
        tell "The server refused the handshake and gave no reason except that it can't agree (alert 40 or 71). Or the certificate was judged under the rules of each build in question, and they differ; the evidence states which build does what."
        fix "Try the pull on the node: `crictl pull IMAGE` decides it, and `go version -m /usr/bin/containerd` shows the build. In any case have the server offer TLS 1.2 with ECDHE and AES-GCM, or TLS 1.3, and a certificate with a key of 2048 bits."
        TlsNoRoots = "tls_no_roots", Undecided, Now, [];
        "This machine has no trusted roots, so no certificate can be checked"
        symptom "Nothing in the cluster; the machine or container that runs Pullpath lacks a CA bundle"
        cause "The image or host that Pullpath runs in has no CA bundle, so it can't judge the server's certificate."
        tell "The trust store is empty. The report records the certificates as presented."
        fix "Install the CA bundle (Debian: package ca-certificates), set SSL_CERT_FILE, or give the authority with --ca-file (network.ca_files)."
        TlsName = "tls_name", Critical, Now, [DnsSearchLeak, DnsHijack];
        "The certificate is for another host name"
        symptom "`x509: certificate is valid for *.example.com, not registry.example.net`"
        cause "The image uses an alias that the certificate does not cover, or the name leads to another server (search list, wrong DNS, a filter)."
        tell "The evidence has the names in the certificate and the requested name."
        fix "Use a name from the certificate in the image reference, or have the certificate reissued for this name too."
        TlsExpired = "tls_expired", Critical, Now, [ClockSkew];
        "The certificate has expired"
        symptom "`x509: certificate has expired or is not yet valid: current time ... is after ...`"
        cause "The certificate was not renewed, or this host's clock is ahead."
        tell "The certificate's notAfter is compared with the local time. The clock is checked only against the Date of an answer that can be trusted; if there was none, the evidence states that the clock was not checked."
        fix "Renew the certificate. If the local time in the evidence is wrong, fix the clock (NTP)."
        TlsNotYetValid = "tls_not_yet_valid", Critical, Now, [ClockSkew];
        "The certificate is not valid yet"
        symptom "`x509: certificate has expired or is not yet valid: current time ... is before ...`"
        cause "This host's clock is behind, or the certificate was issued for a later date."
        tell "The certificate's notBefore is compared with the local time; the clock is checked as for tls_expired."
        fix "Fix this host's clock (NTP). If it is right, wait or have the certificate reissued."
        TlsExpiring = "tls_expiring", Warning, Now, [];
        "The certificate expires soon"
        symptom "None yet"
        cause "Less than a sixth of the certificate's lifetime, and less than 30 days, are left, and it has not been renewed."
        tell "The leaf certificate's notAfter, and the share of its whole lifetime that is left, show it."
        fix "Renew the certificate, and find out why the renewal has not happened."
        ClockSkew = "clock_skew", Warning, Now, [];
        "This machine's clock differs from the server's by over a minute"
        symptom "`x509: certificate has expired or is not yet valid`, or tokens refused right after they were issued"
        cause "The clock of this host (or of the server) is wrong by more than a minute."
        tell "The Date of an answer that was verified, or that was sent over plain http, is compared with the local time. If one server agrees with this machine's clock, the other server's clock is wrong. An old Date from storage does not count, since caches pass it on. It is the cause of a certificate fault only if every server that sent its time differs and the certificate is valid at that time."
        fix "Compare this host's clock with a time server, and fix NTP (chrony) here, or at the server if this host is right."
        TlsBadCertificate = "tls_bad_certificate", Critical, Now, [];
        "The certificate breaks a rule and is rejected"
        symptom "`x509: ...` or `tls: failed to verify certificate: ...`"
        cause "The chain breaks a rule: a bad signature, a purpose that is not server authentication, a constraint of an authority, or a certificate that can't be read."
        tell "The evidence has the reason as the TLS library names it, and the chain as presented."
        fix "Have the registry's owner reissue the certificate, and give them the reason in the evidence."
        TlsPlainHttp = "tls_plain_http", Critical, Now, [];
        "The server speaks plain HTTP where HTTPS is expected"
        symptom "`http: server gave HTTP response to HTTPS client`"
        cause "The registry has no TLS on this port, and containerd is not configured for that (or its config_path does not lead to the hosts.toml that sets it)."
        tell "The answer to the TLS ClientHello begins with HTTP/."
        fix "Give the registry TLS. If it must stay without, write `server = \"http://HOST:PORT\"` in certs.d/HOST:PORT/hosts.toml on every node, and probe with --plain-http."
        TlsNotTls = "tls_not_tls", Critical, Now, [];
        "The server speaks another protocol than TLS on this port"
        symptom "`tls: first record does not look like a TLS handshake`"
        cause "The port in the image's name belongs to another service."
        tell "The evidence has the first bytes of the answer, in hexadecimal."
        fix "Correct the port in the image's name."
        TlsAlert = "tls_alert", Critical, Now, [];
        "The server refuses the TLS handshake"
        symptom "`remote error: tls: handshake failure`, `tls: unrecognized name`, `tls: certificate required`"
        cause "The server does not serve this name, requires a client certificate, or supports only TLS versions or ciphers that are no longer used."
        tell "The evidence has the alert's number and name (RFC 8446, 6)."
        fix "Follow the alert's name. unrecognized_name: check the host of the image. certificate_required: put `client` into hosts.toml. protocol_version or handshake_failure: update the server's TLS."
        TlsReset = "tls_reset", Critical, Now, [DnsHijack];
        "The connection is cut right after the TLS ClientHello"
        symptom "`read: connection reset by peer` or `EOF`, although `telnet HOST 443` works"
        cause "A filter reads the server name in the ClientHello and cuts the connection; less often the server itself does."
        tell "A RST or FIN arrives after the ClientHello and before any certificate, on a connection that had been accepted."
        fix "Allow this server name in the firewall between this node and the registry, or copy the image to a registry inside your network."
        TlsHang = "tls_hang", Critical, Now, [DnsHijack, MtuBlackhole];
        "The server does not answer the TLS ClientHello"
        symptom "`net/http: TLS handshake timeout`"
        cause "The path loses large packets (the server's certificates are larger than one packet), a filter drops the ClientHello, or the server hangs."
        tell "The connection is open, and no byte, or only part of the answer, arrives. The handshake is repeated with small segments: if that passes, and the usual size fails again, the cause is mtu_blackhole."
        fix "Check the MTU of the path first: clamp the MSS on the VPN or tunnel gateway. Then check firewalls that inspect TLS."
        TlsLargeHello = "tls_large_hello", Warning, Now, [MtuBlackhole];
        "A TLS ClientHello of two packets gets no answer"
        symptom "`net/http: TLS handshake timeout` or `connection reset by peer` after an upgrade of containerd, and in browsers; the older containerd still pulls"
        cause "A filter, firewall or load balancer on the path expects the whole ClientHello in one packet, and drops or resets a longer one. Clients that offer a post-quantum key share (X25519MLKEM768) send two packets: upstream builds of containerd with Go 1.24 and later, and browsers. Debian's containerd does not, and is not affected."
        tell "After a handshake that succeeded, Pullpath makes one more with a ClientHello of two packets, and closes it without a request. It timed out or was cut before a byte arrived, and the short one was answered again right after it. The daemon tries this at most once an hour for each endpoint, never through a proxy; `pullpath probe` tries it with --large-hello. Two trials in a row make the confidence high."
        fix "Update or reconfigure the device that drops it; if the path has a tunnel, check its MTU first. Until then set GODEBUG=tlsmlkem=0 in the environment of an affected containerd."
        TlsIncompatible = "tls_incompatible", Critical, Now, [];
        "Client and server have no TLS version or cipher in common"
        symptom "`tls: server selected unsupported protocol version` or `remote error: tls: protocol version`"
        cause "The server offers only TLS 1.1 or older, or ciphers that are no longer used."
        tell "The TLS library rejects what the server chose; the evidence names it."
        fix "Update the server's TLS to version 1.2 or later."
    }
    "Credentials" {
        AuthNoCred = "auth_no_cred", Critical, Now, [SecretMissing, SecretOtherNamespace];
        "The registry asks for a credential, and none matches"
        symptom "`no basic auth credentials`, `failed to fetch anonymous token: unexpected status ... 401`; SWR: `denied: You may not login yet`"
        cause "The pod names no imagePullSecret for this registry, or the Secret is in another namespace."
        tell "No key of any source matches the image, and the registry does not let an anonymous client in. The node's own credentials can't be seen: it is anonymous as far as seen."
        fix "See what the pod names: `kubectl get pod POD -n NAMESPACE -o jsonpath='{.spec.imagePullSecrets[*].name}'`. Create a pull secret in the pod's own namespace (`kubectl create secret docker-registry NAME -n NAMESPACE --docker-server=... --docker-username=... --docker-password=...`) and name it there; a pod that lists any no longer gets those of its ServiceAccount. On CCE, images of SWR in the same account take `default-secret`."
        AuthBadCred = "auth_bad_cred", Critical, Now, [CredentialExpired, SecretCopyExpired, SecretFormat];
        "The credential is rejected"
        symptom "`unauthorized: incorrect username or password`, `failed to fetch oauth token: unexpected status ... 401`"
        cause "The password is wrong, was changed, or has expired."
        tell "The token service, or the registry itself where it asks for Basic, answers 401 to a matching credential."
        fix "Log in with the same user elsewhere to be sure, then create the Secret anew: `kubectl create secret docker-registry NAME --docker-server=... --docker-username=... --docker-password=...`."
        AuthDenied = "auth_denied", Critical, Now, [];
        "The credential is good, but not for this repository"
        symptom "`pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed`"
        cause "The user has no right to pull from it, or the repository's name is misspelt: registries answer both alike."
        tell "A token was given and lets its bearer do nothing here, or the registry refuses a credential it knows. Where the token has the right and the registry still says 401, the evidence says so: then clocks, service name or signing key of the two differ."
        fix "Check the spelling of the repository; then grant this user the right to pull it."
        AuthUnknown = "auth_unknown", Undecided, Now, [];
        "Whether a credential would do is not known"
        symptom "None of its own"
        cause "A credential helper failed, a Secret or the node's own credentials can't be read from here, or the connection is one that no credential was sent over (skip_verify in hosts.toml)."
        tell "The registry asks for a credential, none that was read matches, and a source could not be asked. Whether a pull would succeed is unknown; it is never counted as no credential."
        fix "Run the helper by hand and fix it, or give the pod's Secret by --secret-file: a kubelet does not run the helpers of a user's docker config."
        AuthRealmUnreachable = "auth_realm_unreachable", Critical, Now, [DnsStale, DnsHijack, ProxyMiss];
        "The registry can be reached, its token service can't"
        symptom "`failed to fetch anonymous token: Get \"https://auth...\": dial tcp ...: i/o timeout`, while `/v2/` answers"
        cause "The firewall, the DNS zone or the peering was opened for the registry's host only. A pull needs the host in the challenge's realm too."
        tell "The registry's own leg is well; the leg of its realm fails to resolve or connect. The phase's own cause is among the consequences."
        fix "Open the way to the realm's host as well; `pullpath probe` lists all hosts of a pull."
        AuthTokenFormat = "auth_token_format", Critical, Now, [];
        "The token service answers in a form containerd does not read"
        symptom "401 in containerd, while docker pulls the same image"
        cause "The service answers the OAuth2 POST with `token` only; containerd reads `access_token` there (distribution, oauth.md)."
        tell "The answer was 200, and what is wrong with it is in the evidence: the fields it has, or a field that containerd can't decode."
        fix "Update the registry's token service so that POST answers carry access_token, or make it answer POST with 405 or 404: containerd then asks by GET."
        AuthNotAsked = "auth_not_asked", Critical, Now, [];
        "The registry hides private repositories in place of asking for a login"
        symptom "containerd: `...: not found`, although docker pulls the image"
        cause "A request without a login is answered 404 or 403, and no challenge comes with it. containerd sends a credential only where a challenge asked for one; docker asks /v2/ first and is challenged there."
        tell "/v2/ is answered 401 with a challenge, the manifest without one; a credential for this registry is there and was never asked for."
        fix "Configure the registry, or the proxy in front of it, to answer requests without a login with 401 and WWW-Authenticate."
        AuthBadChallenge = "auth_bad_challenge", Critical, Now, [];
        "The registry's challenge can't be followed"
        symptom "`no basic auth credentials` or `invalid authorization challenge`"
        cause "WWW-Authenticate names no realm, a realm that is no URL, or a scheme that pull clients do not know (Negotiate, Digest)."
        tell "The challenge as it was read is in the evidence."
        fix "Configure the registry, or the proxy in front of it, to ask for Basic or Bearer."
        RealmUntrusted = "realm_untrusted", Undecided, Now, [];
        "The registry sends its clients to a place no credential may go to"
        symptom "None: containerd sends the password there"
        cause "The realm is plain http although the registry is https, or it is a link-local, metadata or loopback address."
        tell "Nothing was sent there. Whether the pull would succeed is unknown: containerd does not refuse."
        fix "Correct the realm in the registry's configuration to an https URL of the token service."
        SecretMissing = "secret_missing", Critical, Now, [];
        "The pod names a Secret that was not found"
        symptom "Event `FailedToRetrieveImagePullSecret`, `attempting to pull the image may not succeed`"
        cause "The name is misspelt or the Secret is not in the pod's namespace; the kubelet goes on without it."
        tell "The pod's imagePullSecrets beside the Secrets given. Where the registry lets nobody in without a credential it is critical, and whether a pull would succeed stays unknown, since the cluster may have the Secret, unless it is the API server that has none; else it is a warning, or a remark where no Secret was given at all."
        fix "Create the Secret in the pod's namespace, or correct its name; give it to `pullpath probe` with --secret-file."
        SecretNotNamed = "secret_not_named", Undecided, Now, [];
        "The pod names no pull Secret"
        symptom "401 or `pull access denied`, although the Secret is in the namespace"
        cause "imagePullSecrets is missing in the pod's template. A Secret counts only when the pod names it, or when its service account does: its Secrets are copied into pods that name none."
        tell "A Secret that was given opens the registry, and the manifest names none. What the service account has is not in the manifest, so whether a pull would succeed is unknown."
        fix "Name the Secret in spec.imagePullSecrets of the pod's template, or in imagePullSecrets of its service account; pods that exist have to be created anew."
        SecretOtherNamespace = "secret_other_namespace", Critical, Now, [];
        "The Secret exists, but in another namespace"
        symptom "Event `FailedToRetrieveImagePullSecret`"
        cause "Pull secrets do not cross namespaces."
        tell "A Secret of that name was given for another namespace only, or the API server has it there only. It is a warning where the pull does without."
        fix "Create it in the pod's namespace too."
        SecretKeyMismatch = "secret_key_mismatch", Critical, Now, [SecretMissing, SecretOtherNamespace];
        "There are credentials, but their server keys do not match the image"
        symptom "401 or 429 as if there were no Secret: the kubelet pulls anonymously without a word"
        cause "The key is for another host, has another port or none, has a path the image is not below, or was written docker.io where Docker Hub's key is https://index.docker.io/v1/."
        tell "Each key with the first rule of the kubelet's matching that it fails. Keys for other registries alone are auth_no_cred."
        fix "See the keys, without the passwords: `kubectl get secret NAME -n NAMESPACE -o jsonpath='{.data.\\.dockerconfigjson}' | base64 -d | jq '.auths | keys'`. Create the Secret anew with --docker-server exactly as the image writes its registry, port included; for Docker Hub https://index.docker.io/v1/."
        ServiceAccountMissing = "service_account_missing", Critical, Now, [];
        "The workload's service account does not exist"
        symptom "No pod appears; event `FailedCreate`: `error looking up service account NAMESPACE/NAME: serviceaccount \"NAME\" not found`"
        cause "Its name is misspelt, or it was not created in this namespace, or was removed. The API server refuses each new pod; pods that exist go on."
        tell "spec.serviceAccountName of the pods' template (default where it names none) beside the service accounts of the namespace (`pullpath lint`)."
        fix "Create it (`kubectl create serviceaccount NAME -n NAMESPACE`), with the imagePullSecrets that its pods need, or correct the name."
        SecretFormat = "secret_format", Critical, Now, [];
        "A pull secret can't be used as it is"
        symptom "401, or an event that the Secret can't be parsed"
        cause "It is not of a pull secret's type, its data key is missing, or the content is no docker config: no JSON, `auth` that is no base64 of user:password, a stray newline."
        tell "Which source it is and what is wrong with it, without its content. A Secret whose docker config can't be decoded is critical even where another would do: the kubelet then fails every pull of the pod. What is only odd is a warning, unless the registry refuses that very credential."
        fix "Create it anew: `kubectl create secret docker-registry NAME --docker-server=... --docker-username=... --docker-password=...`; `pullpath secret check FILE` looks at it before anybody pulls with it."
        SecretCopyExpired = "secret_copy_expired", Critical, Now, [];
        "A copy of CCE's default-secret"
        symptom "Worked yesterday; 401 today"
        cause "CCE renews default-secret; a copy of its content is not renewed, and its login ends."
        tell "A Secret of another name carries CCE's annotation swr-auth-may-expires-at. It is critical once that time is past, a warning before."
        fix "Name default-secret itself in imagePullSecrets, or create a Secret with a long-term login for SWR."
        CredentialExpiring = "credential_expiring", Warning, Now, [];
        "A credential expires soon"
        symptom "None yet"
        cause "A small share of the credential's lifetime is left, or it is of a kind that never lasts."
        tell "The `exp` of a token used as password, the `expiration` in one of Amazon ECR, or CCE's annotation swr-auth-may-expires-at: less than a tenth of a token's life is left, or less than an hour where its beginning is not known. The users oauth2accesstoken (Google) and gitlab-ci-token: their passwords do not say when they end."
        fix "Renew it, and find out what should have."
        CredentialExpired = "credential_expired", Critical, Now, [];
        "A credential has expired"
        symptom "401 since a certain moment"
        cause "The token used as password, or the temporary login, is past its end."
        tell "Its `exp` or annotation beside the local time. A warning where the pull does not need it."
        fix "Create the Secret anew with a fresh credential."
        EipAnnotationInvalid = "eip_annotation_invalid", Critical, Now, [];
        "An EIP annotation of the pod has no valid value"
        symptom "The pod gets no EIP, and on CCE Autopilot no way to a public registry; an event of the network plugin says so"
        cause "A `yangtse.io/` annotation has a wrong name or value."
        tell "The annotations of the pods' template beside the table of CCE's documentation. A value that is none is critical; one that other regions may take, and a key that looks mistyped, is a warning."
        fix "Correct the annotation in the pod template and let the pod be created anew."
        EipAnnotationWithoutEffect = "eip_annotation_without_effect", Warning, Now, [];
        "EIP annotations are set, and no EIP is asked for"
        symptom "The pod has no EIP"
        cause "`yangtse.io/pod-with-eip` is missing or not \"true\", or the annotations stand on the workload and not on its pods' template; they then do nothing."
        tell "The annotations in the manifest."
        fix "Set yangtse.io/pod-with-eip: \"true\" in spec.template.metadata.annotations, or remove the others."
        NoPull = "no_pull", Info, Now, [];
        "The kubelet would pull nothing"
        symptom "None; or `ErrImageNeverPull`"
        cause "imagePullPolicy is Never, or IfNotPresent with an image named by its digest, which a node fetches once. From Kubernetes 1.35 on only Never: see image_verification."
        tell "The policy and the image in the manifest, and the kubelet's version. What images a node has can't be seen."
        fix "Nothing need be done where the image is on the node. From Kubernetes 1.35 on a pod with Never also needs the Secret that the image was pulled with: `ErrImageNeverPull` says the same of an image that is not there and of one that the pod may not use."
        ImageVerification = "image_verification", Warning, Now, [];
        "An image that is on the node may have to be verified by a pull"
        symptom "A pod does not start though its image is on the node: `ErrImagePull` with IfNotPresent (`ErrImageNeverPull` with Never)"
        cause "From Kubernetes 1.35 on (KubeletEnsureSecretPulledImages) a kubelet keeps a record of the credentials that an image was pulled with. A pod that brings another Secret or ServiceAccount, or none, gets the image only after a pull with its own, for which the registry has to answer and to accept it. Images that were pulled without a credential or with the node's own are for all pods, and by default so are those that this kubelet has not pulled."
        tell "A pod with IfNotPresent and a kubelet of 1.35 or later (`--kubelet-version`, or the Node): a warning where a pull would fail. A remark where the image is named by its digest and the pull would succeed, or the kubelet's version is not known. What decides can't be seen: imagePullCredentialsVerificationPolicy of the kubelet, and its records in /var/lib/kubelet/image_manager."
        fix "Fix what the pull fails by, or give the pod the Secret that the image was pulled with. Where every pod may use the image: imagePullCredentialsVerificationPolicy: NeverVerify in the kubelet's configuration, or NeverVerifyAllowlistedImages with the image in preloadedImagesVerificationAllowlist."
    }
    "Answers of the registry" {
        NotARegistry = "not_a_registry", Critical, Now, [];
        "What answers is no registry"
        symptom "`unexpected status ...: 404 Not Found`, `invalid character '<' looking for beginning of value`"
        cause "The host is a web site, a login page, a load balancer without a backend, or the registry is below another path."
        tell "`/v2/` answers neither 200 nor 401, and no answer is in a registry's form."
        fix "Open https://HOST/v2/ and see what answers; correct the host in the image's name, or the route in front of the registry."
        Registry5xx = "registry_5xx", Critical, Now, [];
        "The server has trouble of its own"
        symptom "`unexpected status ...: 500 Internal Server Error`, `502 Bad Gateway`, `503 Service Unavailable`"
        cause "The registry, its token service, its storage or a load balancer in front of them is overloaded or broken."
        tell "A status of the 500s, with the leg that gave it."
        fix "Try again in some minutes; then ask whoever runs that server, with the time and status in the evidence."
        ManifestUnknown = "manifest_unknown", Critical, Now, [];
        "The tag or digest is not in the repository"
        symptom "`manifest unknown`; containerd: `...: not found`"
        cause "The tag is misspelt, was never pushed, or was removed by a retention rule."
        tell "404 with MANIFEST_UNKNOWN. Registries may answer the same for a repository that is not there or that the user may not see."
        fix "List the tags in the registry's console (or `skopeo list-tags`), correct the image, or push it again."
        ImageNameInvalid = "image_name_invalid", Critical, Now, [];
        "The image's name can't be one"
        symptom "`InvalidImageName`; `couldn't parse image name ...: invalid reference format`"
        cause "Upper case in the repository, a scheme before it, a variable that was not filled in, white space."
        tell "The kubelet's words in the event of the pod (docs/pulls.md); `pullpath probe` says what would be right before it asks anybody."
        fix "Correct the image in the pod's template: REGISTRY/PATH:TAG, the path in lower case."
        NameUnknown = "name_unknown", Critical, Now, [];
        "The repository is not in the registry"
        symptom "`name unknown: repository name not known to registry`"
        cause "The path of the image is misspelt: project, organisation or name."
        tell "404 with NAME_UNKNOWN."
        fix "Correct the path between host and tag in the image's name."
        NoPlatform = "no_platform", Critical, Now, [];
        "The image is not built for this platform"
        symptom "`no match for platform in manifest ...: not found`"
        cause "The index has no manifest for the node's processor, for instance amd64 only on an arm64 (Kunpeng) node."
        tell "The platforms of the index beside the one wanted."
        fix "Build and push the image for this platform too, or keep the pod off such nodes with a nodeSelector on kubernetes.io/arch."
        ManifestUnsupported = "manifest_unsupported", Critical, Now, [];
        "The manifest is of a kind that containerd does not pull"
        symptom "`media type ... is no longer supported since containerd v2.0`; `unsupported manifest`"
        cause "An image in schema 1 form, or an artifact that is no image (a chart, a signature)."
        tell "The media type as the registry states it."
        fix "Push the image again with a current client; check that the reference is an image's."
        ManifestInvalid = "manifest_invalid", Critical, Now, [];
        "The manifest can't be read"
        symptom "`failed to unmarshal ...`, `unexpected end of JSON input`"
        cause "What the registry answers is no manifest: damaged storage, or something in front of it that answers 200 with its own page."
        tell "Where reading it failed."
        fix "Push the image again; if other images of the registry fail too, look at what stands in front of it."
        DigestMismatch = "digest_mismatch", Critical, Now, [];
        "The content does not have the digest it goes by"
        symptom "`failed precondition: unexpected commit digest`, `content digest ... does not match`"
        cause "The registry's storage is damaged, or a cache or proxy on the way changes content."
        tell "The digest computed from what came, beside the one asked for."
        fix "Ask again past any cache or proxy; if it stays, push the image again."
        RequestRefused = "request_refused", Critical, Now, [];
        "The server refuses the request, and says no more than that"
        symptom "`unexpected status ...: 400 Bad Request`, `... 406 Not Acceptable`, `... 416 ...`"
        cause "A filter, a proxy or a gateway in front of the registry minds something about the request: its method, its headers, its length."
        tell "A status of the 400s that says nothing of credentials or content."
        fix "Look at the log of whatever answers there for the time in the evidence, and let the registry's requests pass."
        HeadRefused = "head_refused", Critical, Now, [];
        "The registry serves the manifest to GET and refuses it to HEAD"
        symptom "`...: not found`, `unexpected status from HEAD request to ...: 403 Forbidden`, and `curl` shows the manifest"
        cause "A proxy cache that knows only what was fetched before, or storage whose signed URL is good for GET only. containerd asks by HEAD first and does not try GET, unless the answer is 405."
        tell "HEAD is refused, and GET of the same is answered with success. That GET may have filled a cache: the next pull may then succeed."
        fix "Let the registry, or the cache in front of it, answer HEAD of manifests as it answers GET; or answer 405, after which containerd asks by GET."
        ContentEncoding = "content_encoding", Critical, Now, [];
        "Content comes encoded in a way that containerd does not undo"
        symptom "`unsupported Content-Encoding algorithm`, `unexpected commit digest`, `failed size validation`"
        cause "A proxy, a cache or a web server in front of the registry compresses what it passes on, or labels a layer's own compression as Content-Encoding."
        tell "The Content-Encoding of the answer, and what undoing it gave."
        fix "Switch compression off for the registry's paths in whatever stands in front of it."
        ArtifactNotImage = "artifact_not_image", Warning, Now, [];
        "It can be pulled, and no container starts from it"
        symptom "The pull succeeds; then `mismatched image rootfs`, `no command specified`, `exec format error` or an empty root file system"
        cause "The reference is that of an artifact in the form of an image: a Helm chart, a signature, a WebAssembly module, an attestation."
        tell "The media types of the configuration and of the layers. Which of them are pulled hangs on containerd's release."
        fix "Correct the reference to that of the image, or give the pod a runtime that runs this kind of artifact."
        RateLimited = "rate_limited", Critical, Now, [];
        "The registry's rate limit is used up"
        symptom "`429 Too Many Requests`, `toomanyrequests: You have reached your pull rate limit`"
        cause "Too many pulls for this account, or, without one, from this public address: all nodes behind one NAT gateway count together."
        tell "429, with Retry-After and the rate-limit headers where there are some."
        fix "Pull with an account (imagePullSecrets), or copy the image to a registry of your own (SWR on Huawei Cloud)."
        RateLimitLow = "rate_limit_low", Warning, Now, [];
        "The registry's rate limit is nearly used up"
        symptom "None yet"
        cause "As rate_limited; a tenth or less of the pulls allowed is left."
        tell "The rate-limit headers of the manifest request."
        fix "Pull with an account, or copy the image to a registry of your own."
        KubeletQps = "kubelet_qps", Warning, Now, [];
        "The kubelet holds pulls back by itself"
        symptom "`pull QPS exceeded`"
        cause "More pulls were asked for than registryPullQPS (5) and registryBurst (10) allow. It is not the registry."
        tell "The kubelet's own words in the event of a real pull (docs/pulls.md): no request was made."
        fix "Raise registryPullQPS in the node pool's kubelet settings."
        MirrorOrder = "mirror_order", Warning, Now, [];
        "Mirrors are tried first, and fail silently"
        symptom "Pulls start late; the error names one host only"
        cause "hosts.toml lists hosts that do not work before the one that does. containerd tries them again for the tag, for each manifest and for each layer, and shows one error of all."
        tell "Each host of hosts.toml is walked on its own, in containerd's order, until one serves the layer; the cause of each failure is in the evidence, with what it costs and whose error containerd would show."
        fix "Fix or remove the hosts named, in certs.d/REGISTRY/hosts.toml on the nodes; no restart is needed. A `dial_timeout` of a second or two bounds what a dead mirror costs (containerd 2.1 or later)."
        MirrorInsecure = "mirror_insecure", Warning, Now, [];
        "A mirror is used without checking its certificate"
        symptom "None: the pull succeeds"
        cause "hosts.toml says skip_verify for that host, so whoever is on the way can read the password and change what a tag stands for."
        tell "The setting in hosts.toml, beside what checking the certificate came to. Pullpath sends no credential over such a connection; where one is wanted, whether a pull would succeed stays unknown."
        fix "Put the mirror's authority into `ca` in hosts.toml and take skip_verify out."
        MirrorNoFallback = "mirror_no_fallback", Info, Now, [];
        "If the mirror fails, nothing else serves the image"
        symptom "None while the mirror serves; when it fails, every pull fails with the error of the registry or of the mirror"
        cause "A mirror serves the image, and the registry that containerd asks after it would not: it can't be reached from this node, does not know the image, or refuses the credential."
        tell "Where a mirror serves all of an image, the last host of hosts.toml is asked once for the manifest (HEAD). That plays no part in the verdict."
        fix "Nothing where nodes are meant to pull through the mirror alone. Else open the route to the registry or give it the right credential, or list a second mirror in hosts.toml."
        HostsTomlInvalid = "hosts_toml_invalid", Warning, Now, [];
        "containerd's registry settings do not do what they seem to"
        symptom "The mirror is never asked; or `unable to read CA cert`, `unable to load CA cert`, `failed to load X509 key pair` for every pull; or `unknown service runtime.v1.ImageService`, since the CRI plugin has not loaded"
        cause "A file in certs.d can't be decoded and is passed over, a setting is misspelt or in the wrong table, or a certificate it names can't be read. Or config.toml has names of another version, or settings side by side with which containerd's CRI plugin does not load (`mirrors` beside `config_path`)."
        tell "The files are read as the node's release of containerd reads them, imports included. What makes every pull fail is critical; what is ignored is a warning."
        fix "Correct the file and key named in the evidence. config.toml counts when containerd starts: restart it."
        RuntimeSettingsUnknown = "runtime_settings_unknown", Undecided, Now, [];
        "What containerd is set to is not known, and the pull depends on it"
        symptom "None of its own; Pullpath does not say whether a pull would succeed"
        cause "A file that config.toml imports can't be read from here, or a file was changed after containerd started, which goes on by what it read then."
        tell "config.toml and its imports count from containerd's start: where its socket can be seen, their times are compared with the socket's. The pull is then judged with what they have now and without it."
        fix "Restart containerd ('systemctl restart containerd') where a file is newer than it; else give Pullpath the files that are missing."
    }
    "Layers and storage" {
        RedirectBlob = "redirect_blob", Critical, Now, [DnsStale, DnsHijack, ProxyMiss];
        "The registry can be reached, the storage of its layers can't"
        symptom "`failed to copy: httpReadSeeker: failed open: failed to do request: Get \"https://<storage>...\": dial tcp ...`"
        cause "The registry redirects downloads to another host (object storage, a CDN), and the way to that host is closed."
        tell "Registry and token legs are well; the leg of the redirect fails to resolve or connect. The phase's own cause is among the consequences."
        fix "Open the way to the storage host too (on Huawei Cloud: SWR keeps layers in OBS, so OBS needs its VPC endpoint or route as well), or switch redirects off in the registry (distribution: storage.redirect.disable)."
        RedirectUntrusted = "redirect_untrusted", Undecided, Now, [];
        "The registry redirects layers to a place no client should follow it to"
        symptom "None of its own"
        cause "The redirect leads to a link-local, metadata or loopback address, or leaves https for plain http."
        tell "Only plain http is followed (a layer is checked by its digest, and no credential goes there); it is then a warning. Nothing is sent to the others, and whether the pull would succeed is unknown."
        fix "Correct the storage or CDN address in the registry's configuration."
        RedirectBroken = "redirect_broken", Critical, Now, [];
        "The redirect to a layer leads nowhere"
        symptom "`stopped after 10 redirects`, `302 response missing Location header`"
        cause "A loop between hosts, or a redirect without a usable Location."
        tell "The hosts it went through."
        fix "Correct the redirect in the registry, or in the load balancer in front of it."
        RedirectLoc = "redirect_loc", Warning, Later, [];
        "The redirect depends on where we come from"
        symptom "403 or slow downloads on some nodes only"
        cause "A registry that redirects by the client's address sends some nodes to a region that refuses or is far away."
        tell "Nodes with different public addresses are redirected to different hosts."
        fix "Pin a mirror in hosts.toml, or copy the image to a registry of the region."
        BlobUnknown = "blob_unknown", Critical, Now, [];
        "A layer named by the manifest is not there"
        symptom "`failed to copy: ... 404 Not Found`, `blob unknown to registry`"
        cause "The storage lost the layer (a cleanup that went too far, an interrupted copy)."
        tell "404 for the digest of a layer that the manifest names."
        fix "Push the image again."
        BlobDenied = "blob_denied", Critical, Now, [];
        "The storage refuses to hand out a layer"
        symptom "`failed to copy: httpReadSeeker: failed open: unexpected status code ...: 403 Forbidden`"
        cause "The signed URL is refused: a clock that differs, the policy of a VPC endpoint that does not allow the registry's bucket, an allow-list of addresses."
        tell "401 or 403 at the storage, with the storage's own error code."
        fix "AccessDenied: allow the registry's bucket in the VPC endpoint's policy, or this network's address at the storage. RequestTimeTooSkewed or an expired signature: fix the clocks."
        LayerInvalid = "layer_invalid", Critical, Now, [];
        "A layer can't be unpacked"
        symptom "`failed to extract layer`, `wrong diff id calculated on extraction`, `archive/tar: invalid tar header`"
        cause "The layer is no archive, or not the one that the image's configuration names: a build or a copy that went wrong."
        tell "Small layers are unpacked in memory and compared with the configuration's diff_ids."
        fix "Build and push the image again."
        RangeIgnored = "range_ignored", Warning, Now, [];
        "Downloads can't be resumed there"
        symptom "An interrupted pull starts each layer from the beginning"
        cause "The server, or a proxy in front of it, answers a Range request with the whole layer, or refuses it. containerd 2.1.0 to 2.1.2 ask for parts and fail where they are refused; other releases ask for a part only to resume a download."
        tell "200, or a refusal, instead of 206 to a request for a part (RFC 9110, 14.2) by the transfer test, where the whole layer is served."
        fix "Let the proxy or storage in front of the layers pass Range requests on."
        UnexpectedEof = "unexpected_eof", Critical, Now, [];
        "The server ends a layer before its end"
        symptom "`unexpected EOF`, `failed to copy: ... unexpected EOF`"
        cause "A load balancer's idle or size limit, an overloaded server, a cache with half of the file."
        tell "The connection ends in order before the promised length."
        fix "Look at the timeouts and limits of whatever stands in front of the storage; purge its cache."
    }
    "Paths and their declarations" {
        PathUnexpected = "path_unexpected", Warning, Now, [];
        "A leg goes another way than it should"
        symptom "Pulls work and are slow, or are billed as traffic of the public network"
        cause "The host was declared to be reached privately (network.expect), and its name leads over the public network, or the reverse."
        tell "The class of the leg beside the ones declared for its host."
        fix "Look at the addresses first: a name server of the wrong network gives the wrong ones. Then at the route and the endpoint; `--why` shows what the class rests on."
        PathMixed = "path_mixed", Warning, Now, [];
        "The addresses of a name go different ways"
        symptom "Pulls differ from one to the next: quick and slow, or good and timed out"
        cause "The name has addresses of several classes, for instance a private one beside a public one."
        tell "Each address of one family is classed on its own, and the classes differ."
        fix "Have the name servers of this network give addresses of one kind."
        PrivateUnmapped = "private_unmapped", Info, Now, [];
        "A private address, and how it is reached is not known"
        symptom "None of its own"
        cause "The address is private, and in none of the ranges that the kernel, the cloud or the configuration know."
        tell "VPC, peering, Direct Connect and VPN look alike from inside; round trips and segment sizes only suggest one. Told where the address is not reached: which way is missing depends on which there should be."
        fix "Declare the range under network.cidrs of --config; the hint has the line to add."
        AddressOverlap = "address_overlap", Warning, Now, [];
        "The address is in a range that two networks use"
        symptom "Timeouts to an address that works elsewhere, or the wrong host answers"
        cause "The far network's range overlaps one of this VPC. The local route always wins: packets never leave for the far host."
        tell "The address is declared as one of another network (network.cidrs), and is inside the VPC's range or on an own interface. It is critical where nothing answers."
        fix "Renumber one of the networks, or reach the far host through a private NAT gateway or a VPC endpoint."
        EipAnnotationStale = "eip_annotation_stale", Warning, Now, [];
        "The EIP in the pod's annotation is not the address in use"
        symptom "Allow-lists of registries do not let the pod in"
        cause "The EIP was unbound or replaced after the annotation was written, or packets leave by SNAT."
        tell "The address that others see (network.egress) beside yangtse.io/allocated-ipv4-eip."
        fix "Let the pod be created anew: the annotation is written once."
        NoEgress = "no_egress", Critical, Now, [];
        "This network has no way to the public network"
        symptom "Every public registry times out: `dial tcp ...:443: i/o timeout`"
        cause "Neither an SNAT rule for this subnet, with a route to its NAT gateway, nor an EIP."
        tell "The registry is not reached, and none of the other public hosts in network.controls is; nobody out there has seen us either."
        fix "Add an SNAT rule for the subnet that the packets leave from (the node's, or on Autopilot the container subnet), or bind an EIP. An EIP wins over SNAT."
    }
    "Slow pulls" {
        PullNoProgress = "pull_no_progress", Critical, ByTransfer, [];
        "A pull stalls until containerd gives up"
        symptom "`cancel pulling image ... because of no progress in 5m0s`; the event only says `context canceled`"
        cause "No byte at all came for five minutes: a stall on the wire, or a disk that does not take more."
        tell "All streams of the transfer test went silent after their first bytes. One test is shorter than containerd's timer, so that this is a warning; slowness alone never trips it."
        fix "Fix the stall; a longer timer only helps when the rate is fine."
        Deadline = "deadline", Critical, Now, [];
        "The pull's time was used up"
        symptom "`context deadline exceeded`"
        cause "The sum of all phases is longer than what was allowed."
        tell "The event of a real pull says so and names no phase (docs/pulls.md); a check of that image on that node has the phases with their times."
        fix "Check the image on that node with `pullpath probe`, and see the cause of the phase that takes the time."
        BwEipCap = "bw_eip_cap", Warning, ByTransfer, [];
        "The EIP's bandwidth is the limit"
        symptom "A flat rate near the bought bandwidth; all pulls slow together"
        cause "The EIP or the NAT gateway's EIP has less bandwidth than the image needs; 5 Mbit/s is the default of a pod's EIP."
        tell "The leg goes by an EIP or by SNAT, more connections have the same sum, a queue or losses show, and the plateau is the declared size (the pod's annotation, network.eip_bandwidth_mbit) or 10 Mbit/s where that is smaller; or a host elsewhere (--control-url) shares the same sum."
        fix "Raise the EIP's bandwidth above 10 Mbit/s (up to that size, inbound is 10 already), or use SWR in the region."
        BwCap = "bw_cap", Warning, ByTransfer, [];
        "Something caps the rate, on which side is not known"
        symptom "A flat rate"
        cause "A limit on our side, on the way, or at the registry."
        tell "More connections have the same sum, and a queue or losses show: a shaper or policer. What would decide the side is named."
        fix "Declare the bandwidth, or name a control host."
        BwPerFlow = "bw_per_flow", Warning, ByTransfer, [];
        "Each connection is capped, not their sum"
        symptom "One layer is slow however fast the network is"
        cause "A limit for each connection, or each request, at the registry or CDN."
        tell "The sum grows with the number of connections, without losses and without a full window."
        fix "Raise max_concurrent_downloads in containerd; ask the registry's owner."
        BwWindow = "bw_window", Warning, ByTransfer, [];
        "The TCP window is too small for the distance"
        symptom "Slow over long distances only"
        cause "The receive buffer here, or the send buffer there, holds less than a round trip's worth of data."
        tell "The sum grows with the number of connections. Ours: the rate times the round trip is the window that is offered, and that does not grow. Theirs: bytes come in bursts, one in each round trip."
        fix "Raise net.ipv4.tcp_rmem here; or the server's tcp_wmem."
        BwLoss = "bw_loss", Warning, ByTransfer, [];
        "Packets get lost on the way"
        symptom "A pull runs for an hour"
        cause "Loss on a link, or a policer that drops what is above a rate."
        tell "Out-of-order segments, and a sum that grows with the number of connections. (Where it does not grow, a policer drops what is above its rate: bw_cap.)"
        fix "Open a ticket for the path with the numbers."
        BwThrottle = "bw_throttle", Warning, ByTransfer, [];
        "The first megabytes are fast, the rest is not"
        symptom "Small images are quick, large ones crawl"
        cause "A token bucket at the registry, the CDN or the NAT gateway."
        tell "A megabyte or more, and two seconds' worth, came ahead of the rate that lasts: the knee of a token bucket."
        fix "Copy the image to a registry of your own."
        BwRemote = "bw_remote", Warning, ByTransfer, [];
        "The registry's side is slow"
        symptom "Only this registry is slow"
        cause "The registry or its storage sends slowly."
        tell "A control host (--control-url) is faster at the same time, and does not take anything from the registry's rate."
        fix "Copy the image to a registry of the region; ask the registry's owner."
        BwNode = "bw_node", Warning, ByTransfer, [];
        "This node's own bandwidth is the limit"
        symptom "One node, or one instance type, pulls slower than its neighbours"
        cause "The bandwidth that the cloud gives this instance."
        tell "The plateau is what the metadata service gives as instance_max_bandwidth. Without metadata it takes several nodes beside each other."
        fix "Use a larger instance type, or drain the node."
        BwSelf = "bw_self", Info, ByTransfer, [];
        "The measurement itself was the limit"
        symptom "None"
        cause "Pullpath's own CPU limit throttled it, or it did not read what was there."
        tell "The cgroup's throttling counters, this process's CPU time, and unread bytes during the test."
        fix "Raise Pullpath's CPU limit; the sample does not count."
        TtfbSlow = "ttfb_slow", Warning, ByTransfer, [];
        "The first byte of a layer takes long"
        symptom "Every layer starts late"
        cause "A cold cache, or storage that is slow to open a file."
        tell "A second fetch of the same bytes tells the two apart."
        fix "Cold cache: nothing, or pull through a mirror. Slow storage: ask its owner."
        ThroughputLow = "throughput_low", Warning, ByTransfer, [];
        "The pull would take longer than it may"
        symptom "Pods stay in ContainerCreating for minutes; rollouts end with `ProgressDeadlineExceeded`"
        cause "The rate at which layers come is too small for the size of this image and the time given."
        tell "The sustained rate of the transfer test and the compressed size of this platform's layers, beside --expect-pull-within, or else the workload's progressDeadlineSeconds (600 s)."
        fix "Buy the bandwidth that the hint names, bring the image nearer (a copy in SWR in this region, by a VPC endpoint), or make it smaller."
        DiskUnpack = "disk_unpack", Warning, Now, [];
        "The network is fast, the disk is not"
        symptom "Pulls are slow on a fast network"
        cause "Unpacking waits for the node's disk, or for its processors."
        tell "Real pulls from a registry come to less than a third of the rate that nodes measure of it (cluster.node_rates_mbit), without waiting for one another. Not told where that rate is not given."
        fix "A faster disk for containerd's folder (/var/lib/containerd), or a node with more processors."
        DiskFull = "disk_full", Critical, Now, [];
        "The node's disk has no room for the image"
        symptom "`no space left on device`, `disk quota exceeded`"
        cause "containerd's folder is on a disk, or within a quota, that is full."
        tell "The runtime's words in the event of a real pull (docs/pulls.md)."
        fix "Look at `df -h` and `df -i` of /var/lib/containerd on that node; remove unused images (`crictl rmi --prune`), or give it a larger disk. The kubelet's imageGCHighThresholdPercent says when it begins to clean up by itself."
        SerialPull = "serial_pull", Info, Now, [];
        "Pulls wait for one another"
        symptom "Pods wait behind one large image"
        cause "serializeImagePulls is on in the kubelet (the default), or maxParallelImagePulls is small."
        tell "The kubelet's events have the pull's time with and without waiting (since Kubernetes 1.28): more of it is waiting."
        fix "Set serializeImagePulls to false and maxParallelImagePulls to a few in the node pool's kubelet settings; make the largest images smaller."
        Intermittent = "intermittent", Undecided, Now, [];
        "The pull fails now and then"
        symptom "A retry works"
        cause "The servers answer the same request differently: several behind one name that differ, a cache that is being filled, or a limit on requests at a time or in a period."
        tell "Where the runtime's release is not known, the walk is made more than once. One walk failed where another, by rules that do the same there, did not. Whether a pull would succeed is unknown."
        fix "Probe several times, with `--runtime`; compare the answers of each address of the name, and look for a limit on connections or requests at the load balancer."
    }
    "Everything else" {
        ReleaseDecides = "release_decides", Undecided, Now, [];
        "Releases of containerd would not do the same, and the node's is not known"
        symptom "The same image is pulled on some nodes only"
        cause "Releases differ in what they make of the registry's answers, and which one pulls is not known here."
        tell "The walk is made by the rules of each line of releases, and they end differently; the evidence says how each ends."
        fix "Name the node's runtime (`--runtime containerd://1.7.24`, as `kubectl get node -o wide` shows it)."
        ProbeLimit = "probe_limit", Undecided, Now, [];
        "Pullpath can't do here what containerd can"
        symptom "None of its own"
        cause "The server answers in a way that containerd takes and this program does not: a content encoding, a document of unusual size, a body that ends early again and again, more requests than a check makes."
        tell "The answer as it was seen. Whether a pull would succeed is unknown."
        fix "Pull the image once on the node by hand (`crictl pull IMAGE`) to see what containerd makes of it."
        Unexplained = "unexplained", Critical, Now, [];
        "A phase failed in a way this version has no name for"
        symptom "Whatever the evidence says"
        cause "Not known."
        tell "The fault as it was seen."
        fix "Send the JSON report (`-o json`; it holds no secret) to Pullpath's maintainers: it should have a name."
    }
}

/// What is known of a cause before anything was seen.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub code: &'static str,
    /// The part of the catalogue that it stands in.
    pub(super) area: &'static str,
    /// As a finding has it unless its rule says otherwise.
    pub severity: Severity,
    /// Where it is critical, something that decides the pull was not observed: the verdict is unknown.
    pub leaves_undecided: bool,
    pub title: &'static str,
    /// What users see: kubelet events, containerd's words.
    pub symptom: &'static str,
    /// What happens.
    pub cause: &'static str,
    /// How Pullpath tells it from its neighbours.
    pub tell: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// Root causes that this one follows from when both are seen on a leg.
    pub masked_by: &'static [Cause],
    pub detected: Detected,
}

/// How an entry says what its cause does to a pull.
enum Grade {
    /// The pull fails.
    Critical,
    /// Something that decides the pull could not be observed.
    Undecided,
    /// It succeeds, slower or at risk.
    Warning,
    /// Worth knowing.
    Info,
}

impl Grade {
    const fn severity(&self) -> Severity {
        match self {
            Self::Critical | Self::Undecided => Severity::Critical,
            Self::Warning => Severity::Warning,
            Self::Info => Severity::Info,
        }
    }
}

/// Whether this version can tell the cause, and by what.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Detected {
    Now,
    /// By how layers come, and so by a transfer test alone.
    ByTransfer,
    /// The catalogue explains it; it shows when several nodes are compared.
    Later,
}

/// There is no cause of that code.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no cause has this code")]
pub struct UnknownCode;

impl Cause {
    /// It is told by a transfer test alone.
    pub fn is_of_transfer(self) -> bool {
        self.entry().detected == Detected::ByTransfer
    }
}

impl FromStr for Cause {
    type Err = UnknownCode;

    /// Takes a code as it is printed, and as it may be typed (`TLS_NAME`, `tls-name`).
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let code = text.trim().to_ascii_lowercase().replace('-', "_");
        Self::ALL
            .iter()
            .copied()
            .find(|cause| cause.code() == code)
            .ok_or(UnknownCode)
    }
}
