//! The catalogue of causes: the code of each, its texts, and which other causes it may follow from.
//!
//! A code is at once a metric label, a JSON value and the name of its documentation. It is stable: a
//! renamed code stays valid for `pullpath explain`, and no code is used again for something else.

use std::borrow::Cow;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::level::Severity;
use Detected::{ByTransfer, Later, Now};

macro_rules! causes {
    ($($area:literal {
        $($cause:ident = $code:literal, $severity:ident, $detected:expr, [$($root:ident),*];
          $title:literal
          symptom $symptom:literal
          cause $what:literal
          detection $detection:literal
          fix $fix:literal)*
    })*) => {
        /// A reason why a pull fails, is slow, or is at risk.
        #[derive(Clone, Copy, Debug, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
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

            /// The stable code, in snake case.
            pub fn code(self) -> &'static str {
                self.entry().code
            }

            /// The texts and properties of the cause.
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
                        detection: $detection,
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
    "Name resolution" {
        DnsNxdomain = "dns_nxdomain", Critical, Now, [];
        "The host name does not exist in DNS"
        symptom "`dial tcp: lookup registry.example.com: no such host`"
        cause "The host in the image's name is misspelled, or the name is in a private zone that this network's resolver does not serve."
        detection "Every server answers NXDOMAIN for the name as written. If only some do, the cause is dns_split_horizon."
        fix "Compare the host in the image's name with the registry's documentation, and correct it. If it is a private name, associate its private zone with this VPC, or forward the zone to the servers that have it."
        DnsNodata = "dns_nodata", Critical, Now, [];
        "The host name has no address of the required family"
        symptom "`lookup registry.example.com: no such host`, although `dig` shows that the name exists"
        cause "The name has records of another type only, for instance AAAA where only IPv4 is used, or a CNAME that leads to a name without addresses."
        detection "The answer is NOERROR without A or AAAA records (RFC 2308, NODATA)."
        fix "Give the name an A or AAAA record, or fix the name that its CNAME leads to."
        DnsTimeout = "dns_timeout", Critical, Now, [];
        "Name servers do not answer"
        symptom "`lookup registry.example.com on 10.0.0.2:53: read udp ...: i/o timeout`"
        cause "The server is down, or a security group, network ACL or missing route drops UDP port 53 on the path."
        detection "No answer over UDP arrives within the resolver's own timeout. If one server of several is silent, it is a warning: a pull waits for that server first, by default 5 s each time."
        fix "Check the security group and the route to the server (UDP and TCP port 53; on Huawei Cloud, egress to 100.125.0.0/16), or remove the dead server from the node's resolv.conf."
        DnsServerUnreachable = "dns_server_unreachable", Critical, Now, [];
        "Name servers can't be reached"
        symptom "`lookup registry.example.com on 10.0.0.2:53: ... connection refused` or `network is unreachable`"
        cause "Nothing listens on the server's port 53, or this machine has no route to it."
        detection "The kernel reports ICMP port unreachable, or no route, for the query itself."
        fix "Start the name server, or point the node's resolv.conf at one that runs. If there is no route to it, add the route."
        DnsServfail = "dns_servfail", Critical, Now, [];
        "Name servers fail to look up this name (SERVFAIL)"
        symptom "`lookup registry.example.com: server misbehaving`"
        cause "The server could not get the answer itself: its forwarder is unreachable, or DNSSEC validation fails."
        detection "Every server queried answers SERVFAIL."
        fix "Check the log of that name server for this name; then its forwarders, and the DNSSEC chain of the zone."
        DnsRefused = "dns_refused", Critical, Now, [];
        "Name servers refuse to answer this client (REFUSED)"
        symptom "`lookup registry.example.com: server misbehaving`"
        cause "The server does not serve clients of this network, or does not serve this zone."
        detection "Every server queried answers REFUSED."
        fix "Allow this subnet in the server's access list, or use the VPC's own resolver."
        DnsError = "dns_error", Critical, Now, [];
        "Name servers send an unusable answer"
        symptom "`lookup registry.example.com: server misbehaving` or `cannot unmarshal DNS message`"
        cause "The answer has an unusual response code, belongs to another query, or was damaged in transit."
        detection "The evidence has the response code, or what is wrong with the message."
        fix "Query the server from this machine with `dig @SERVER NAME`, and fix or replace the server."
        DnsTcpClosed = "dns_tcp_closed", Critical, Now, [];
        "A DNS answer is too long for UDP, and the name server is closed on TCP"
        symptom "`lookup registry.example.com on 10.0.0.2:53: dial tcp 10.0.0.2:53: connect: connection refused`, or `i/o timeout`, although other names resolve"
        cause "The name has many addresses or aliases, so the answer over UDP is cut off (TC). The client has to repeat the query over TCP, and a firewall was opened for UDP port 53 only, or the server does not listen on TCP."
        detection "The same server answers over UDP with TC set, and its TCP port is refused or silent. If another server answers then, it is a warning. An answer of more than 512 bytes that fits with EDNS needs TCP only of builds without EDNS: if the build is unknown, so is the verdict."
        fix "Open TCP port 53 to the name server (firewall, security group, network ACL), as UDP is, or shorten the answer: fewer addresses or aliases for the name."
        DnsNoEdns = "dns_no_edns", Critical, Now, [];
        "A name server, or a filter before it, does not answer queries with EDNS"
        symptom "`lookup registry.example.com on 10.0.0.2:53: i/o timeout` or `server misbehaving` by containerd, while `nslookup` gets an answer"
        cause "Go's resolver adds an OPT record (EDNS, RFC 6891) to its queries since Go 1.19, and has no second try without. An old server answers FORMERR or NOTIMP, and an old firewall drops such packets."
        detection "The server answers no query with EDNS, answers the same query without, and then again does not answer it with EDNS. Whether pulls are hit depends on containerd's build (Go release, GODEBUG netedns0); if that is unknown, so is the verdict."
        fix "Let the name server, and every firewall in front of it, accept queries with EDNS, or use another name server. Until then set GODEBUG=netedns0=0 in containerd's environment (Go 1.21.12, 1.22.5 or later)."
        DnsSlow5s = "dns_slow_5s", Warning, Now, [];
        "One of the two DNS queries (A or AAAA) gets no answer"
        symptom "Pulls start 5 or 10 seconds late; `nslookup` is fast"
        cause "A client sends the A and AAAA queries together, and one of them gets no answer: a server or firewall drops AAAA, or two packets from one port race in conntrack. A Go client waits its whole timeout for the missing answer, each time."
        detection "The same server answers one family and stays silent on the other."
        fix "Make the server answer AAAA queries; an empty answer is enough. In pods, use NodeLocal DNSCache; raise nf_conntrack_max where the table is full."
        DnsSlow = "dns_slow", Warning, Now, [];
        "Each lookup of the name takes seconds"
        symptom "Pulls start late; or `dial tcp: lookup registry.example.com: i/o timeout` after 30 s"
        cause "Names or servers that give no answer are queried before the answer is found: a search domain whose zone leads to a dead server, a server that fails only after seconds. containerd allows 30 s for a dial, the lookup included."
        detection "The time is computed from each server's answers and the settings in resolv.conf (timeout, attempts, ndots, search, rotate, single-request); a silent server costs its timeout for each attempt. It is critical if it exceeds the 30 s. A silent server before the one that answers is dns_timeout, and one silent family dns_slow_5s."
        fix "Take the dead search domain or server out of the node's resolv.conf, lower ndots, or make the server answer for that zone."
        DnsUndecided = "dns_undecided", Undecided, Now, [];
        "Whether the name resolves depends on the runtime's resolver"
        symptom "The name resolves on some nodes only, or with some tools only"
        cause "Go programs resolve names themselves, and hand a lookup to libc if they are linked with it and resolv.conf, nsswitch.conf, the environment or the name ask for something that Go does not know. Here the two have different results; or the check ended before it knew the result."
        detection "The lookup is simulated for Go's own resolver and for libc's; the evidence has both results, and what makes Go hand the lookup over. A source such as mdns or resolve in nsswitch.conf is not queried by the check."
        fix "`go version -m /usr/bin/containerd` on the node shows CGO_ENABLED: with 0, Go's own resolver is used. Or change the setting in the evidence, so that both have the same result."
        DnsSearchLeak = "dns_search_leak", Warning, Now, [];
        "A search domain answers in place of the name as written"
        symptom "A wrong address, or `x509: certificate is valid for ...`, in pods only"
        cause "ndots is large (5 in pods), so the resolver first tries the name with each search domain appended, and a wildcard record in one of them answers."
        detection "The full name that answered is not the name as written. It is critical, and the cause of tls_name, if the server found there has a certificate for neither name. A name without dots, or one that ends in .svc, is meant to be completed and is not reported."
        fix "Remove the wildcard record from the search domain. The kubelet's own pull uses the node's resolv.conf: check the search list there too."
        DnsPodNodeDiff = "dns_pod_node_diff", Warning, Later, [];
        "Pods and nodes resolve the name differently"
        symptom "The name resolves in a pod and the kubelet's pull fails with `no such host`, or the reverse"
        cause "A pod queries CoreDNS; the kubelet and containerd query the servers in the node's resolv.conf."
        detection "The same query from both networks gets different answers."
        fix "Fix the node's resolver; the pods' resolver plays no part in a pull."
        DnsSplitHorizon = "dns_split_horizon", Warning, Now, [];
        "Name servers return different answers for the same host name"
        symptom "Some pulls fail or take the public route; or all do, since a name server was added to resolv.conf"
        cause "One name server has the private zone and another does not. Which server is queried first decides where the pull goes."
        detection "For the same query, one server returns NXDOMAIN or a public address, and another a private address. Two public addresses are load balancing and are not reported. With `options rotate`, a lookup may begin with each server: if some ways to begin find no address, it is critical, and whether a pull succeeds is unknown."
        fix "Make all servers in resolv.conf serve the same view: forward the private zone on those that lack it, or remove those servers from the list."
        DnsHijack = "dns_hijack", Critical, Now, [];
        "The DNS answer is not an address of the registry"
        symptom "`dial tcp 162.125.32.13:443: i/o timeout` for a registry that is not at that address"
        cause "Answers for well-known registries are forged in transit (reported for networks in mainland China)."
        detection "The name is that of a public registry, every address in the answer is in a network of the companies named in reports of forged answers (none of them serves a registry), and the leg fails there. Other forged answers look like tcp_timeout or tls_name."
        fix "Copy the image to a registry in your region (on Huawei Cloud: SWR, SoftWare Repository for Container) and pull it from there. Do not install any authority's certificate to get past the forged answer."
        DnsStale = "dns_stale", Critical, Now, [];
        "The hosts file has an address that DNS does not have, and it fails"
        symptom "A timeout, a certificate of another site, or an old registry's 404, although the name resolves to another address elsewhere"
        cause "The hosts file is read before any name server, and its entry is outdated."
        detection "The address is from the hosts file, and the name servers, which a pull does not query for this name, return another one. The server at the entry's address does not answer, has a certificate for other names, or refuses the pull. The confidence is high if a TLS handshake at the address in DNS succeeds; after the handshake it is medium, and the failure itself is listed too. If the entry agrees with DNS, DNS has no address, the address in DNS fails as well, or the port is closed, the failure's own cause is reported: tcp_timeout, tcp_refused, tls_name. The hint for a closed port names the entry only if the server at the address in DNS accepts a connection."
        fix "Correct or remove the entry in the node's /etc/hosts, and in the pod's if the check ran in one."
    }
    "Connections and proxies" {
        NodeAddress = "node_address", Undecided, Now, [];
        "The image of a pod leads to the node itself, which is not checked"
        symptom "The kubelet's own message for the pod, for instance `dial tcp 127.0.0.1:5000: connect: connection refused`"
        cause "The registry in the image's name, its token service or its layer storage is at a loopback, link-local or metadata address, or at an address of the node. A check reports what a server answers, so that a pod with such an image could read services of the node through it."
        detection "Every form of the address that would be connected to is compared, also in IPv6 (mapped, NAT64, 6to4, Teredo); nothing is sent. hosts.toml, config.toml and kubernetes.local_registries name hosts and ports that are checked all the same, and so do targets and `pullpath probe`."
        fix "If it is a registry, list its host and port in kubernetes.local_registries, or name it in containerd's hosts.toml. Otherwise correct the image's name. The kubelet's message shows why the pull failed."
        TcpTimeout = "tcp_timeout", Critical, Now, [AuthRealmUnreachable, RedirectBlob, NoEgress, AddressOverlap, DnsStale, DnsHijack, ReversePathFilter, SourceAddress];
        "The server does not answer connection attempts"
        symptom "`dial tcp 1.2.3.4:443: i/o timeout`; Docker: `request canceled while waiting for connection`"
        cause "There is no route to the address (no SNAT rule or EIP for this subnet, no peering route, no return route), or a security group, network ACL or firewall drops the packets."
        detection "At every address tried, the SYN gets no SYN-ACK, no RST and no ICMP error."
        fix "Run `pullpath probe IMAGE` on the node to see the address. Check the egress rules on this side: the security group must let TCP 443 out, also to 100.125.0.0/16 and 198.19.128.0/17 (Huawei Cloud's services and VPC endpoints). Public address: give this subnet egress. Add an SNAT (source NAT) rule on the NAT gateway and a route to it, or bind an EIP (Elastic IP). On CCE Turbo clusters the node subnet counts for pulls. Private address: add the routes on both sides of the peering, Direct Connect or VPN. Then open the security group of the far side."
        TcpRefused = "tcp_refused", Critical, Now, [DnsHijack, AddressOverlap];
        "The server refuses the connection"
        symptom "`dial tcp 1.2.3.4:443: connect: connection refused`"
        cause "The host is reached and nothing listens on the port, or a firewall answers in its place."
        detection "A RST or ICMP port unreachable arrives at once. A firewall's own answer often arrives faster than the host could answer."
        fix "Check the port in the image's name, and that the registry or its load balancer listens on it. If it does, ask the firewall's owner, with the times in the report."
        TcpReset = "tcp_reset", Critical, Now, [];
        "The connection is cut before the server answers"
        symptom "`read: connection reset by peer` or `EOF` while waiting for an answer"
        cause "The server, a load balancer or a filter closes the connection instead of answering the request."
        detection "A RST or FIN arrives after connect and TLS have succeeded and before the answer."
        fix "Check the log of the registry, or of the load balancer in front of it, for this moment. A filter that inspects requests leaves no entry there."
        TcpProhibited = "tcp_prohibited", Critical, Now, [DnsStale, DnsHijack];
        "A router or firewall on the path prohibits the connection"
        symptom "`connect: no route to host` or `connect: permission denied`"
        cause "A router or firewall answers with ICMP administratively prohibited."
        detection "The socket's error queue has the ICMP type and code, and the address that sent it."
        fix "Ask the owner of the host that sent the ICMP error to let this traffic through."
        LocalPolicy = "local_policy", Critical, Now, [DnsStale, DnsHijack];
        "This machine's own policy forbids the connection"
        symptom "`connect: operation not permitted` or `permission denied`"
        cause "netfilter, an eBPF program of the CNI plugin (NetworkPolicy), or a prohibit or blackhole route on this machine rejects the connection before it leaves."
        detection "connect(2) fails at once with EPERM, EACCES or EINVAL, and no ICMP error arrives. The evidence names a route of type blackhole or prohibit, and a rule (`ip rule`)."
        fix "Find the rule with `ip route get ADDRESS`, `nft list ruleset` and the NetworkPolicies of this pod, and allow the connection there."
        NoLocalAddress = "no_local_address", Critical, Now, [DnsStale, DnsHijack];
        "This machine has no local address or port to connect from"
        symptom "`connect: cannot assign requested address`"
        cause "This machine has no address of that family, or all local ports to that server are in use."
        detection "connect(2) fails with EADDRNOTAVAIL or EAFNOSUPPORT. If the check has a source address and no free port, and runs in a pod's network, it is the pod's own shortage: own_limits."
        fix "IPv4: count the connections to that server (`ss -tan`), and widen net.ipv4.ip_local_port_range. IPv6: give the host an address, or remove the AAAA record."
        ReversePathFilter = "reverse_path_filter", Critical, Now, [];
        "This machine drops the server's answers (rp_filter)"
        symptom "`dial tcp 1.2.3.4:443: i/o timeout` on machines with several interfaces; `tcpdump` shows the answers"
        cause "Answers come in through another interface than the one that packets to the server leave through, and the strict reverse path filter (rp_filter=1, RFC 3704) of that interface drops them."
        detection "The kernel's counter TcpExt IPReversePathFilter grows while the SYN is out, by more than this machine usually drops; nothing answers, and another interface that leads out has a strict filter. IPv4 only: the kernel has no such counter for IPv6."
        fix "Set net.ipv4.conf.INTERFACE.rp_filter=2, or correct the routes so that packets leave where their answers come in (`ip route get ADDRESS`, `ip rule`)."
        SourceAddress = "source_address", Critical, Now, [ReversePathFilter];
        "Packets leave with the address of another interface"
        symptom "`dial tcp 1.2.3.4:443: i/o timeout` on machines with several interfaces, for some networks only"
        cause "A route or a rule sends packets through one interface with the source address of another. Answers go to the other network, or a filter against forged addresses drops the packets on their path."
        detection "The server does not answer, and the kernel's route for it has a source address that belongs to another interface than the one it leads through. Addresses of lo and of dummy devices, which routing daemons announce, are not reported."
        fix "Correct `src` of the route or the rule that selects it: `ip route get ADDRESS` and `ip rule` show both."
        NetUnreachable = "net_unreachable", Critical, Now, [NoEgress, AddressOverlap, DnsStale, DnsHijack];
        "This machine or a router has no route to the server"
        symptom "`connect: network is unreachable`"
        cause "The routing table of this machine, or a router on the path, has no route for the address."
        detection "connect(2) fails with ENETUNREACH. If the evidence has an ICMP error, a router sent it. The evidence names a route of type throw, which ends the lookup in its table."
        fix "Run `ip route get ADDRESS` on this machine, and add the route or a default route."
        HostUnreachable = "host_unreachable", Critical, Now, [DnsStale, DnsHijack, AddressOverlap];
        "The host at this address can't be reached"
        symptom "`connect: no route to host`"
        cause "The last router gets no answer from the host (it is down, or the address is wrong), or this machine has an unreachable route for it."
        detection "connect(2) fails with EHOSTUNREACH, without an ICMP code that means a filter."
        fix "Check that the address in the DNS answer is the registry's and that the host is up."
        AddressPartlyDead = "address_partly_dead", Warning, Now, [DnsStale];
        "Some addresses of the host name do not work"
        symptom "Pulls sometimes fail or start late"
        cause "The name has several addresses, and some of them do not answer."
        detection "Each address is tried on its own; those of the same family give different results. TLS that fails at some addresses is reported with its own cause (tls_name, tls_hang, …)."
        fix "Remove the dead addresses from DNS, or fix the hosts behind them."
        NetUnreachV6 = "net_unreach_v6", Warning, Now, [];
        "IPv6 is tried first and has no working route"
        symptom "`dial tcp [2a06:...]:443: connect: network is unreachable`"
        cause "The name has an AAAA record, and this machine has an IPv6 address without a working route."
        detection "The IPv6 attempts fail at once while IPv4 works, and a dual-stack client tries IPv6 first."
        fix "Fix the IPv6 route, or remove this machine's IPv6 address or the AAAA record."
        V6Blackhole = "v6_blackhole", Warning, Now, [];
        "IPv6 is tried first and its packets are lost"
        symptom "Every connection of a pull starts 300 ms late"
        cause "IPv6 packets are lost on the path. A dual-stack client waits before it falls back to IPv4 (RFC 8305; 300 ms in Go)."
        detection "SYNs over IPv6 are not answered while IPv4 works, and a dual-stack client tries IPv6 first."
        fix "Fix the IPv6 path, or remove this machine's IPv6 address or the AAAA record."
        ConnectLoss = "connect_loss", Warning, Now, [MtuBlackhole];
        "Packets are lost while a connection is made"
        symptom "Some connections of a pull start 1, 3 or 7 s late"
        cause "The path loses packets, a NAT gateway or firewall drops SYNs above a limit, or the server's queue of new connections is full."
        detection "The kernel counts what it sends again (TCP_INFO): a SYN that was sent more than once before the connection was established, or segments of the TLS handshake. Where the round trip itself takes nearly a second, a repeated SYN is no sign of loss, and nothing is reported."
        fix "Probe several times, and compare with other servers and other nodes: if only this server is concerned, look there for a full queue (`nstat -az TcpExtListenDrops`) or a limit on SYNs; if all are, for loss on the path, or a NAT gateway at its limit."
        HttpTimeout = "http_timeout", Critical, Now, [MtuBlackhole];
        "The server accepts the request and does not answer in time"
        symptom "`context deadline exceeded (Client.Timeout exceeded while awaiting headers)`"
        cause "The server is overloaded or waits for another server behind it; or the path loses large packets and passes small ones."
        detection "Connect and TLS succeed, and no answer, or only a part of it, arrives in time. Small segments (see mtu_blackhole) did not help."
        fix "Check the server's own log and load. If small answers arrive and large ones never do, check the MTU of the path."
        SnatExhaust = "snat_exhaust", Warning, Now, [];
        "The NAT gateway has no ports or sessions left"
        symptom "Occasional timeouts under load; a retry works"
        cause "Many connections to one address and port share few SNAT (source NAT) addresses, or the gateway's session limit is reached. Ports are counted for each destination: others are reached."
        detection "Connections to a public address are established, and others at the same time or after them, from other source ports, get no answer; this network reaches other public hosts. A dead server behind a balancer looks the same, so the confidence is medium at most. If no connection at all is established, tcp_timeout is reported, and its hint names the NAT gateway."
        fix "Look at the metrics of the NAT gateway: connections, and dropped packets. Add EIPs (Elastic IPs) to its SNAT rule, use a larger gateway type, or a VPC endpoint for the registry."
        ConntrackFull = "conntrack_full", Warning, Later, [];
        "The node's connection table (conntrack) is full"
        symptom "`nf_conntrack: table full, dropping packet` in the node's kernel log; timeouts on that node only"
        cause "The node has more connections than net.netfilter.nf_conntrack_max allows."
        detection "One node differs from its neighbors; its own counters show it."
        fix "Raise net.netfilter.nf_conntrack_max on that node, and find out what opens so many connections."
        MtuBlackhole = "mtu_blackhole", Critical, Now, [];
        "Large packets are lost on the path (MTU)"
        symptom "`net/http: TLS handshake timeout`; or the manifest arrives and layers stall"
        cause "A link on the path (VPN, overlay, Direct Connect) has a smaller MTU, and the ICMP message that reports it is dropped."
        detection "An exchange hangs after it had started normally. Pullpath repeats it at the same address twelve times, some with the socket's TCP_MAXSEG lowered, in an order that no period explains: servers that take turns behind one address would pass and fail in a period. Only if all small ones pass and all others fail is the size the reason. If equal ones pass and fail, it is another cause (tls_hang, http_timeout)."
        fix "Clamp the MSS on the tunnel's gateway, or set the interface's MTU to the tunnel's; or let ICMP type 3 code 4 (IPv6: packet too big) through."
        ProxyMisconfigured = "proxy_misconfigured", Critical, Now, [];
        "The proxy settings do not work for this host"
        symptom "`proxyconnect tcp: dial tcp ...: connect: connection refused`, or `Forbidden` and `Proxy Authentication Required` without the registry's own error message"
        cause "HTTPS_PROXY and NO_PROXY of containerd's service do not fit this host, or containerd or systemd reads them otherwise than they are meant; or the proxy is down or refuses the host."
        detection "Pullpath reads the settings as systemd and Go do, and connects to the proxy as Go does (HTTP, HTTPS or SOCKS5); the proxy does not connect it to the host, or Go finds another proxy or none in the URL (`^`, `%`, `#` or `/` in the password). The evidence shows which variable named the proxy, and which entry of NO_PROXY matched or that none did; with --compare-direct, also the result of the same check without the proxy. Warnings: a host that NO_PROXY excludes from the proxy and that can't be reached directly; an entry of NO_PROXY that seems to mean the host and does not match it (with a scheme, a path or another port; a network that has the host's address)."
        fix "Add the registry, token and storage hosts to NO_PROXY in containerd's systemd drop-in, or fix the proxy; then restart containerd. CIDRs in NO_PROXY match only addresses in image names, never host names. Write special characters of the proxy's password as %XX (in a systemd unit as %%XX)."
        ProxyUnknown = "proxy_unknown", Undecided, Now, [];
        "Pullpath can't determine whether the proxy works for this pull"
        symptom "No message of its own"
        cause "HTTPS_PROXY or HTTP_PROXY has text that builds of containerd read in different ways, because of their Go release (`ftp://`, `socks5h://`, more than one colon in the host); or it names a proxy with https:// whose TLS can't be judged here."
        detection "The text is read by the rules of every Go release that the node's containerd may be built with, and they differ; nothing is tried then. Or the TLS of the proxy is undecided, as for `tls_undecided`; or the proxy's certificate is not valid and `skip_verify` is set, so that containerd sends the proxy its user and password and Pullpath does not. Whether a pull would succeed is unknown."
        fix "Write http://HOST:PORT or socks5://HOST:PORT into the variable, or try the pull on the node (`crictl pull IMAGE`)."
        ProxyUnneeded = "proxy_unneeded", Info, Now, [];
        "The pull uses a proxy that it does not need"
        symptom "None; pulls may be slower than the path allows"
        cause "The hosts can be reached directly, and NO_PROXY does not name them."
        detection "With --compare-direct, the check succeeds both with and without the proxy."
        fix "No action is needed. To bypass the proxy, add these hosts to NO_PROXY."
        Fw403 = "fw_403", Critical, Now, [];
        "A filter or allow-list in front of the registry refuses this client"
        symptom "`unexpected status from HEAD request ...: 403 Forbidden`"
        cause "An allow-list of client addresses, a web filter, or the policy of a VPC endpoint answers 403."
        detection "The answer is 403 without a challenge and without a registry's error body. A registry would request credentials, or answer DENIED."
        fix "Add this network's public address (that of its Elastic IP or NAT gateway) to the registry's allow-list, or the registry to the filter's."
    }
    "TLS and time" {
        TlsUnknownCa = "tls_unknown_ca", Critical, Now, [DnsHijack, AddressOverlap];
        "The certificate is signed by an authority that is not trusted here"
        symptom "`x509: certificate signed by unknown authority`"
        cause "The registry has a certificate of a private authority, a proxy on the path substitutes its own, the server does not send its intermediate certificate, or this machine's CA bundle is old (EulerOS 2.9 removed some roots)."
        detection "The evidence has the chain as presented, its issuer and fingerprint, and the roots in use. This cause is not reported if no root could be loaded."
        fix "Find the reason in the report. The server omits its intermediate certificate: fix the server (see tls_intermediate). A TLS-inspecting proxy on the path signs: exempt this host from inspection, or trust the proxy's authority as below. This host's CA bundle is old: update the package ca-certificates. Otherwise get the authority's certificate from its owner, and compare its fingerprint with the one in the report over another channel than this network. Then add it to the node's trust store, or to `ca` in containerd's certs.d. Never install what the server itself sends without that comparison."
        TlsIntermediate = "tls_intermediate", Critical, Now, [DnsHijack];
        "The server does not send its intermediate certificate"
        symptom "`x509: certificate signed by unknown authority`, while browsers accept the certificate"
        cause "The server is set up with its own certificate only, or with a wrong one above it. Browsers download or remember the missing certificate; containerd does not."
        detection "The issuer of the last certificate is neither among those sent nor among the roots, and that certificate states where its issuer's can be downloaded. The issuer may still be a root that only has to be trusted, so the confidence is medium. It is high if a certificate with the issuer's name was sent that did not sign."
        fix "Have the server's owner append the issuer's certificate to the server's own in the file that the server sends (`fullchain.pem`, not `cert.pem`)."
        TlsRootExpired = "tls_root_expired", Critical, Now, [ClockSkew];
        "The root certificate of the chain has expired"
        symptom "`x509: certificate has expired or is not yet valid`, while the server's certificate is valid"
        cause "The CA bundle, `--ca-file` or `ca` in hosts.toml has an old certificate of the authority, which has expired; the authority now uses another. Go, unlike others, rejects a chain to an expired root."
        detection "A root with the issuer's name and key is present, outside its validity. The evidence names it, its file and its date."
        fix "Update the node's CA bundle (package ca-certificates), or put the authority's current certificate into the file named in the report (`pullpath probe IMAGE`, or the node's status page); then restart containerd."
        TlsCaUnfit = "tls_ca_unfit", Critical, Now, [];
        "An authority in the chain is not allowed to sign this certificate"
        symptom "`x509: invalid signature: parent certificate cannot sign this kind of certificate`, `x509: too many intermediates for path length constraint`, `x509: a root or intermediate certificate is not authorized to sign for this name`"
        cause "The authority's certificate is not marked as one (basicConstraints CA:TRUE), its keyUsage lacks keyCertSign, its path length is too short, or its name constraints exclude the name. Some tools create such roots, and OpenSSL accepts some of them where Go does not."
        detection "The evidence names the certificate, whether it was sent or is a root, and what it lacks."
        fix "Have the authority's owner reissue its certificate with basicConstraints CA:TRUE and keyUsage keyCertSign, with room for the intermediates and names below, and replace it where the report names it."
        TlsDefaultCertificate = "tls_default_certificate", Critical, Now, [AddressOverlap];
        "The server sends an ingress controller's default certificate"
        symptom "`x509: certificate is valid for ingress.local, not HOST`, or `certificate signed by unknown authority`"
        cause "The ingress controller has no certificate for this name: no Ingress with a TLS Secret names the host, or that Secret is missing or can't be read. Or the name leads to another cluster's ingress."
        detection "The subject is that of a controller's own default (`Kubernetes Ingress Controller Fake Certificate`, `TRAEFIK DEFAULT CERT`, `NGINXIngressController`)."
        fix "Give the registry's Ingress a TLS Secret for this host (spec.tls, in its own namespace). Never trust the default certificate: it is regenerated at each start, or every cluster has the same."
        TlsLeafTrusted = "tls_leaf_trusted", Warning, Now, [];
        "The server's own certificate is trusted instead of its authority's"
        symptom "None yet; `x509: certificate signed by unknown authority` after the next renewal"
        cause "The server's certificate (`openssl s_client` shows it first) was installed in place of its authority's. Go accepts a certificate that is itself a root, and checks no other."
        detection "The very certificate that the server sent is among the roots."
        fix "Put the authority's certificate into the file named in the report (`pullpath probe IMAGE`, or the node's status page) before the server's is renewed."
        TlsUndecided = "tls_undecided", Undecided, Now, [DnsHijack];
        "Pullpath can't determine whether containerd accepts this TLS"
        symptom "None, or `remote error: tls: handshake failure`"
        cause "The server offers, or its certificates are made with, something that some builds of containerd accept and others don't (depending on their Go release and its GODEBUG defaults), or that Pullpath's own TLS lacks: AES-CBC, RSA key exchange, 3DES, RSA keys below 2048 bits, TLS 1.1."
        detection "The server refused the handshake and gave no reason except that it can't agree (alert 40 or 71). Or the certificate was judged under the rules of each build in question, and they differ; the evidence states which build does what."
        fix "Try the pull on the node: `crictl pull IMAGE` decides it, and `go version -m /usr/bin/containerd` shows the build. In any case have the server offer TLS 1.2 with ECDHE and AES-GCM, or TLS 1.3, and a certificate with a key of 2048 bits."
        TlsNoRoots = "tls_no_roots", Undecided, Now, [];
        "This machine has no trusted roots, so no certificate can be checked"
        symptom "Nothing in the cluster; the machine or container that runs Pullpath lacks a CA bundle"
        cause "The image or host that Pullpath runs in has no CA bundle, so Pullpath can't judge the server's certificate."
        detection "The trust store is empty. The report records the certificates as presented."
        fix "Install the CA bundle (Debian: package ca-certificates), set SSL_CERT_FILE, or give the authority with --ca-file."
        TlsName = "tls_name", Critical, Now, [DnsSearchLeak, DnsHijack, AddressOverlap];
        "The certificate is for another host name"
        symptom "`x509: certificate is valid for *.example.com, not registry.example.net`"
        cause "The image uses an alias that the certificate does not cover, or the name leads to another server (search list, wrong DNS, a filter)."
        detection "The evidence has the names in the certificate and the requested name."
        fix "Use a name from the certificate in the image reference, or have the certificate reissued for this name too."
        TlsExpired = "tls_expired", Critical, Now, [ClockSkew];
        "The certificate has expired"
        symptom "`x509: certificate has expired or is not yet valid: current time ... is after ...`"
        cause "The certificate was not renewed, or this machine's clock is ahead."
        detection "The certificate's notAfter is compared with the local time. The clock is checked only against the Date of an answer that can be trusted; if there was none, the evidence states that the clock was not checked."
        fix "Renew the certificate. If the local time in the report is wrong, fix the clock (NTP)."
        TlsNotYetValid = "tls_not_yet_valid", Critical, Now, [ClockSkew];
        "The certificate is not valid yet"
        symptom "`x509: certificate has expired or is not yet valid: current time ... is before ...`"
        cause "This machine's clock is behind, or the certificate was issued for a later date."
        detection "The certificate's notBefore is compared with the local time; the clock is checked as for tls_expired."
        fix "Fix this machine's clock (NTP). If it is right, wait or have the certificate reissued."
        TlsExpiring = "tls_expiring", Warning, Now, [];
        "The certificate expires soon"
        symptom "None yet"
        cause "Less than a sixth of the certificate's lifetime, and less than 30 days, are left, and it has not been renewed."
        detection "The leaf certificate's notAfter, and the share of its whole lifetime that is left, show it."
        fix "Renew the certificate, and find out why the renewal has not happened."
        ClockSkew = "clock_skew", Warning, Now, [];
        "This machine's clock differs from the server's by over a minute"
        symptom "`x509: certificate has expired or is not yet valid`, or tokens refused right after they were issued"
        cause "The clock of this machine (or of the server) is wrong by more than a minute."
        detection "The Date of an answer that was verified, or that was sent over plain http, is compared with the local time. If one server agrees with this machine's clock, the other server's clock is wrong. An old Date from storage does not count, since caches pass it on. It is the cause of a certificate fault only if every server that sent its time differs and the certificate is valid at that time."
        fix "Compare this machine's clock with a time server, and fix NTP (chrony) on this machine, or at the server if this machine is right."
        TlsBadCertificate = "tls_bad_certificate", Critical, Now, [];
        "The certificate breaks a rule and is rejected"
        symptom "`x509: ...` or `tls: failed to verify certificate: ...`"
        cause "The chain breaks a rule: a bad signature, a purpose that is not server authentication, a constraint of an authority, or a certificate that can't be read."
        detection "The evidence has the reason as the TLS library names it, and the chain as presented."
        fix "Have the registry's owner reissue the certificate, and give them the reason in the report."
        TlsPlainHttp = "tls_plain_http", Critical, Now, [];
        "The server speaks plain HTTP where HTTPS is expected"
        symptom "`http: server gave HTTP response to HTTPS client`"
        cause "The registry has no TLS on this port, and containerd is not configured for that (or its config_path does not lead to the hosts.toml that sets it)."
        detection "The answer to the TLS ClientHello begins with HTTP/."
        fix "Give the registry TLS. If it must stay without, write `server = \"http://HOST:PORT\"` in certs.d/HOST:PORT/hosts.toml on every node, and probe with --plain-http."
        TlsNotTls = "tls_not_tls", Critical, Now, [];
        "The server speaks a protocol other than TLS on this port"
        symptom "`tls: first record does not look like a TLS handshake`"
        cause "The port in the image's name belongs to another service."
        detection "The evidence has the first bytes of the answer, in hexadecimal."
        fix "Correct the port in the image's name."
        TlsAlert = "tls_alert", Critical, Now, [];
        "The server refuses the TLS handshake"
        symptom "`remote error: tls: handshake failure`, `tls: unrecognized name`, `tls: certificate required`"
        cause "The server does not serve this name, requires a client certificate, or supports only TLS versions or ciphers that are no longer used."
        detection "The evidence has the alert's number and name (RFC 8446, 6)."
        fix "Follow the alert's name. unrecognized_name: check the host of the image. certificate_required: put `client` into hosts.toml. protocol_version or handshake_failure: update the server's TLS."
        TlsReset = "tls_reset", Critical, Now, [DnsHijack];
        "The connection is cut right after the TLS ClientHello"
        symptom "`read: connection reset by peer` or `EOF`, although `telnet HOST 443` works"
        cause "A filter reads the server name in the ClientHello and cuts the connection; less often the server itself does."
        detection "A RST or FIN arrives after the ClientHello and before any certificate, on a connection that had been accepted. The handshake is repeated: if some pass, a part of the servers behind the address is dead, and no filter of names is at work."
        fix "Allow this server name in the firewall between this node and the registry, or copy the image to a registry inside your network."
        TlsHang = "tls_hang", Critical, Now, [DnsHijack, MtuBlackhole];
        "The server does not answer the TLS ClientHello"
        symptom "`net/http: TLS handshake timeout`"
        cause "The path loses large packets (the server's certificates are larger than one packet), a filter drops the ClientHello, or the server hangs."
        detection "The connection is open, and no byte, or only part of the answer, arrives. The handshake is repeated with small and with usual segments: if the size decides, the cause is mtu_blackhole; if connections pass and hang in turn whatever their size, a part of the servers behind the address (a load balancer) is dead; whether a pull meets it is chance, and the verdict is unknown."
        fix "Check the MTU of the path first: clamp the MSS on the VPN or tunnel gateway. Then check firewalls that inspect TLS."
        TlsLargeHello = "tls_large_hello", Warning, Now, [MtuBlackhole];
        "A TLS ClientHello of two packets gets no answer"
        symptom "`net/http: TLS handshake timeout` or `connection reset by peer` after an upgrade of containerd, and in browsers; the older containerd still pulls"
        cause "A filter, firewall or load balancer on the path expects the whole ClientHello in one packet, and drops or resets a longer one. Clients that offer a post-quantum key share (X25519MLKEM768) send two packets: upstream builds of containerd with Go 1.24 and later, and browsers. Debian's containerd does not, and is not affected."
        detection "After a handshake that succeeded, Pullpath makes one more with a ClientHello of two packets, and closes it without a request. It timed out or was cut before a byte arrived, and the short one was answered again right after it. Then both are tried again, the short one once and the long one twice, with the same result, so that a dead server behind a balancer is not taken for a filter. The daemon tries this at most once an hour for each endpoint, never through a proxy; `pullpath probe --large-hello` tries it at once. Two trials in a row make the confidence high."
        fix "Update or reconfigure the device that drops it; if the path has a tunnel, check its MTU first. Until then set GODEBUG=tlsmlkem=0 in the environment of an affected containerd."
        TlsIncompatible = "tls_incompatible", Critical, Now, [];
        "Client and server have no TLS version or cipher in common"
        symptom "`tls: server selected unsupported protocol version` or `remote error: tls: protocol version`"
        cause "The server offers only TLS 1.1 or older, or ciphers that are no longer used."
        detection "The TLS library rejects what the server chose; the evidence names it."
        fix "Update the server's TLS to version 1.2 or later."
    }
    "Credentials and workloads" {
        AuthNoCred = "auth_no_cred", Critical, Now, [SecretMissing, SecretOtherNamespace];
        "The registry requires a credential, and none matches the image"
        symptom "`no basic auth credentials`, `failed to fetch anonymous token: unexpected status ... 401`; SWR: `denied: You may not login yet`"
        cause "The pod names no imagePullSecret for this registry, or the Secret is in another namespace."
        detection "No key of any source matches the image, and the registry refuses anonymous clients. If the node's own credentials can't be read, the pull is anonymous only as far as Pullpath can observe."
        fix "Create a pull secret in the pod's own namespace (`kubectl create secret docker-registry NAME -n NAMESPACE --docker-server=... --docker-username=... --docker-password=...`), and name it in the pod's imagePullSecrets; a pod that lists any no longer gets those of its ServiceAccount. To see what the pod names: `kubectl get pod POD -n NAMESPACE -o jsonpath='{.spec.imagePullSecrets[*].name}'`. On CCE (Cloud Container Engine), images of SWR (SoftWare Repository for Container) in the same account use `default-secret`."
        AuthBadCred = "auth_bad_cred", Critical, Now, [CredentialExpired, SecretCopyExpired, SecretFormat];
        "The registry or its token service rejects the credential"
        symptom "`unauthorized: incorrect username or password`, `failed to fetch oauth token: unexpected status ... 401`"
        cause "The password is wrong, was changed, or has expired."
        detection "The token service, or the registry itself if it uses Basic authentication, answers 401 to a matching credential."
        fix "Check the password: log in with the same user elsewhere. Then recreate the Secret: `kubectl create secret docker-registry NAME -n NAMESPACE --docker-server=... --docker-username=... --docker-password=... --dry-run=client -o yaml | kubectl apply -f -`."
        AuthDenied = "auth_denied", Critical, Now, [];
        "The credential is valid but has no access to this repository"
        symptom "`pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed`"
        cause "The user has no right to pull from the repository, or the repository's name is misspelled: registries answer both alike."
        detection "A token was issued that grants no access here, or the registry refuses a credential that it knows. If the token grants access and the registry still answers 401, the evidence states it: then clocks, service name or signing key of the two differ."
        fix "Check the spelling of the repository; then grant this user the right to pull it."
        AuthUnknown = "auth_unknown", Undecided, Now, [];
        "Pullpath can't determine whether a credential would be accepted"
        symptom "No message of its own"
        cause "A credential helper failed, a Secret or the node's own credentials can't be read from this vantage point, or Pullpath sent no credential because the connection is not verified (skip_verify in hosts.toml)."
        detection "The registry requires a credential, none that was read matches, and a source could not be read. Whether a pull would succeed is unknown; it is never counted as no credential."
        fix "Give Pullpath the pod's Secret with --secret-file, or run the failed helper by hand and fix it. A kubelet does not run the helpers of a user's docker config."
        AuthRealmUnreachable = "auth_realm_unreachable", Critical, Now, [NoEgress, AddressOverlap, DnsStale, DnsHijack, ProxyMisconfigured, ReversePathFilter, SourceAddress];
        "The registry can be reached, but its token service can't"
        symptom "`failed to fetch anonymous token: Get \"https://auth...\": dial tcp ...: i/o timeout`, while `/v2/` answers"
        cause "The firewall or the peering was opened for the registry's host only. A pull also needs the host in the challenge's realm."
        detection "The registry's own leg succeeds, and no address of its realm answers a SYN. Any other fault of that leg is reported with its own cause (dns_nxdomain, tcp_refused, local_policy, …), and the evidence names the place."
        fix "Open the path to the realm's host as well (routes, firewalls); `pullpath probe` lists all hosts of a pull. Or correct the realm in the registry's configuration, if clients should use another host."
        AuthTokenFormat = "auth_token_format", Critical, Now, [];
        "The token service answers in a format that containerd can't read"
        symptom "401 in containerd, although docker pulls the same image"
        cause "The service answers the OAuth2 POST with `token` only; containerd reads `access_token` there (distribution, oauth.md)."
        detection "The answer was 200, and the evidence shows what is wrong with it: the fields it has, or a field that containerd can't decode."
        fix "Update the registry's token service so that POST answers carry access_token, or make it answer POST with 405 or 404: containerd then uses GET."
        AuthNotAsked = "auth_not_asked", Critical, Now, [];
        "The registry hides private repositories instead of requesting a login"
        symptom "containerd: `...: not found`, although docker pulls the image"
        cause "The registry answers a request without a login with 404 or 403, and without a challenge. containerd sends a credential only after a challenge; docker first requests /v2/ and is challenged there."
        detection "/v2/ answers 401 with a challenge, and the manifest request is refused without one; a credential for this registry is available and was never requested."
        fix "Configure the registry, or the proxy in front of it, to answer requests without a login with 401 and WWW-Authenticate."
        AuthBadChallenge = "auth_bad_challenge", Critical, Now, [];
        "The registry sends an invalid authentication challenge"
        symptom "`no basic auth credentials` or `invalid authorization challenge`"
        cause "WWW-Authenticate names no realm, a realm that is not a URL, or a scheme that pull clients do not support (Negotiate, Digest)."
        detection "The evidence has the challenge as Pullpath read it."
        fix "Configure the registry, or the proxy in front of it, to request Basic or Bearer authentication."
        RealmUntrusted = "realm_untrusted", Undecided, Now, [];
        "The registry names a token service that no credential may be sent to"
        symptom "None: containerd sends the password there"
        cause "The realm is plain http although the registry is https, or it is a link-local, metadata or loopback address."
        detection "Pullpath sends nothing there. Whether the pull would succeed is unknown: containerd does not refuse."
        fix "Correct the realm in the registry's configuration to an https URL of the token service."
        SecretMissing = "secret_missing", Critical, Now, [];
        "The pull secret that the pod names was not found"
        symptom "Event `FailedToRetrieveImagePullSecret`, `attempting to pull the image may not succeed`"
        cause "The name is misspelled, or the Secret is not in the pod's namespace. The kubelet goes on without it."
        detection "The pod's imagePullSecrets are compared with the Secrets given. If the registry refuses anonymous clients, it is critical, and whether a pull would succeed stays unknown, since the cluster may have the Secret, unless the API server reports that it has none. Otherwise it is a warning, or info if no Secret was given at all."
        fix "Create the Secret in the pod's namespace, or correct its name. If it exists, give it to `pullpath probe` with --secret-file."
        SecretUnread = "secret_unread", Warning, Now, [];
        "The kubelet could not read the pull secret"
        symptom "The kubelet's log has `Unable to retrieve pull secret`, with `failed to sync secret cache` or `object \"NAMESPACE\"/\"NAME\" not registered`; then it pulls without the Secret"
        cause "The kubelet has just started and pulls once before it has read the Secret, or its API server is slow, refuses it or does not answer. The Secret may exist and be right."
        detection "The kubelet's log has the reason. Its Event (`FailedToRetrieveImagePullSecret`) has none and fits secret_missing as well. No check finds it: a check reads the Secret itself."
        fix "Wait for the kubelet's next try, or delete the pod to try at once. If it lasts, look at the kubelet's connection to the API server and its rights (`journalctl -u kubelet` on the node)."
        SecretNotNamed = "secret_not_named", Undecided, Now, [];
        "The pod names no pull secret"
        symptom "401 or `pull access denied`, although the Secret is in the namespace"
        cause "imagePullSecrets is missing in the pod's template. A Secret counts only if the pod names it, or if its service account does: the account's Secrets are copied into pods that name none."
        detection "The registry accepts a Secret that was given, and the manifest names none. The service account's Secrets are not in the manifest, so whether a pull would succeed is unknown."
        fix "Name the Secret in spec.imagePullSecrets of the pod's template, or in imagePullSecrets of its service account; then recreate existing pods."
        SecretOtherNamespace = "secret_other_namespace", Critical, Now, [];
        "The pull secret was found only in another namespace"
        symptom "Event `FailedToRetrieveImagePullSecret`"
        cause "A pod can use pull secrets of its own namespace only."
        detection "A Secret of that name was given for another namespace only, or the API server has it there only. It is a warning if the pull succeeds without it."
        fix "Create the Secret in the pod's namespace too."
        SecretKeyMismatch = "secret_key_mismatch", Critical, Now, [SecretMissing, SecretOtherNamespace];
        "Credentials exist, but their server keys do not match the image"
        symptom "401 or 429 as if there were no Secret: the kubelet pulls anonymously and reports nothing"
        cause "The key is for another host, has another port or none, has a path that is not a prefix of the image's, or was written docker.io where Docker Hub's key is https://index.docker.io/v1/."
        detection "The evidence has each key with the first of the kubelet's matching rules that it fails. Keys for other registries count too if someone chose their source for this pull: a Secret that was given or that the pod names, a docker config that was given. If they are only in a docker config at one of the usual paths, the cause is auth_no_cred."
        fix "Recreate the Secret with --docker-server exactly as the image writes its registry, port included; for Docker Hub https://index.docker.io/v1/. To see the keys without the passwords: `kubectl get secret NAME -n NAMESPACE -o jsonpath='{.data.\\.dockerconfigjson}' | base64 -d | jq '.auths | keys'`."
        ServiceAccountMissing = "service_account_missing", Critical, Now, [];
        "The workload's service account does not exist"
        symptom "No pod appears; event `FailedCreate`: `error looking up service account NAMESPACE/NAME: serviceaccount \"NAME\" not found`"
        cause "Its name is misspelled, or it was not created in this namespace, or was removed. The API server refuses each new pod; existing pods keep running."
        detection "`pullpath lint` compares spec.serviceAccountName of the pod template (default if it names none) with the service accounts of the namespace."
        fix "Create it (`kubectl create serviceaccount NAME -n NAMESPACE`), with the imagePullSecrets that its pods need, or correct the name."
        SecretFormat = "secret_format", Critical, Now, [];
        "A pull secret has an invalid type or content"
        symptom "401, or an event that the Secret can't be parsed: `Failed to pull image … illegal base64 data at input byte 0`, from Kubernetes 1.33 on `Error: illegal base64 data at input byte 0`"
        cause "It is not of a pull secret's type, its data key is missing, or the content is not a docker config: no JSON, `auth` that is not base64 of user:password, a stray newline. In Kubernetes 1.33 and 1.34, one that can't be decoded also stops pods whose image is on the node."
        detection "The evidence names the source and what is wrong with it, without its content. A Secret whose docker config can't be decoded is critical even if another would work: the kubelet then fails every pull of the pod. Content that is only unusual is a warning, unless the registry refuses that very credential."
        fix "Recreate it: `kubectl create secret docker-registry NAME -n NAMESPACE --docker-server=... --docker-username=... --docker-password=... --dry-run=client -o yaml | kubectl apply -f -`. If its type is wrong, delete it first: a Secret's type can't be changed. Before pods use it, check it with `pullpath secret check FILE`."
        SecretCopyExpired = "secret_copy_expired", Critical, Now, [];
        "The pull secret is a copy of CCE's default-secret, and has expired or will expire"
        symptom "It worked yesterday; 401 today"
        cause "CCE (Cloud Container Engine) renews default-secret; a copy of its content is not renewed, and its login expires."
        detection "A Secret of another name carries CCE's annotation swr-auth-may-expires-at. It is critical once that time is past, a warning before."
        fix "Name default-secret itself in imagePullSecrets, or create a Secret with a long-term login for SWR (SoftWare Repository for Container)."
        CredentialExpiring = "credential_expiring", Warning, Now, [];
        "A credential expires soon"
        symptom "None yet"
        cause "A small share of the credential's lifetime is left, or it is of a kind that is always short-lived."
        detection "The expiry is the `exp` of a token used as password, the `expiration` in one of Amazon ECR, or CCE's annotation swr-auth-may-expires-at: less than a tenth of a token's lifetime is left, or less than an hour if its start is not known. The users oauth2accesstoken (Google) and gitlab-ci-token are reported too: their passwords do not state when they expire."
        fix "Renew the credential, and find out what should have renewed it."
        CredentialExpired = "credential_expired", Critical, Now, [];
        "A credential has expired"
        symptom "401 since a certain time"
        cause "The token used as password, or the temporary login, has expired."
        detection "Its `exp` or annotation is compared with the local time. It is a warning if the pull does not need the credential."
        fix "Recreate the Secret with a new credential."
        EipAnnotationInvalid = "eip_annotation_invalid", Critical, Now, [];
        "An EIP annotation of the pod has an invalid name or value"
        symptom "The pod gets no EIP (Elastic IP), and on CCE Autopilot no egress to a public registry; an event of the network plugin reports it"
        cause "A `yangtse.io/` annotation has a wrong name or value."
        detection "The annotations of the pod template are compared with the table in CCE's documentation. An invalid value is critical. A value that other regions may accept, or a key that looks mistyped, is a warning."
        fix "Correct the annotation in the pod template, and recreate the pod."
        EipAnnotationWithoutEffect = "eip_annotation_without_effect", Warning, Now, [];
        "The pod's EIP annotations have no effect"
        symptom "The pod has no EIP (Elastic IP)"
        cause "`yangtse.io/pod-with-eip` is missing or not \"true\", or the annotations are on the workload and not on its pod template, where alone they have an effect."
        detection "The annotations in the manifest show it."
        fix "Set yangtse.io/pod-with-eip: \"true\" in spec.template.metadata.annotations, or remove the other EIP annotations."
        NoPull = "no_pull", Info, Now, [];
        "The kubelet would not pull the image (imagePullPolicy)"
        symptom "None; or `ErrImageNeverPull`"
        cause "imagePullPolicy is Never, or IfNotPresent with an image named by its digest, which a node pulls only once. From Kubernetes 1.35 on, only Never counts: see image_verification."
        detection "The policy and the image in the manifest, and the kubelet's version, show it. Which images a node has can't be observed."
        fix "No action is needed if the image is on the node. From Kubernetes 1.35 on, a pod with Never also needs the Secret that the image was pulled with: `ErrImageNeverPull` is reported both for an image that is missing and for one that the pod may not use."
        ImageVerification = "image_verification", Warning, Now, [];
        "The kubelet may pull an image again to verify a pod's access to it"
        symptom "A pod does not start though its image is on the node: `ErrImagePull` with IfNotPresent (`ErrImageNeverPull` with Never)"
        cause "From Kubernetes 1.35 on (KubeletEnsureSecretPulledImages), a kubelet records the credentials that an image was pulled with. A pod gets the image at once if it has that Secret, another one with the same login, or that ServiceAccount. Any other pod gets it only after a pull with its own credentials or without one, which the registry has to answer and to accept. Images that were pulled without a credential or with the node's own are available to all pods, and by default so are those that this kubelet has not pulled."
        detection "The pod has IfNotPresent, and the kubelet is 1.35 or later (`--kubelet-version`, or the Node): a warning if a pull would fail. Info if the image is named by its digest and the pull would succeed, or the kubelet's version is not known. What decides can't be observed: imagePullCredentialsVerificationPolicy of the kubelet, and its records in /var/lib/kubelet/image_manager."
        fix "Fix the cause of the failing pull, or give the pod the Secret that the image was pulled with. If every pod may use the image: imagePullCredentialsVerificationPolicy: NeverVerify in the kubelet's configuration, or NeverVerifyAllowlistedImages with the image in preloadedImagesVerificationAllowlist."
    }
    "Registry answers and mirrors" {
        NotARegistry = "not_a_registry", Critical, Now, [];
        "The server that answers is not a registry"
        symptom "`unexpected status ...: 404 Not Found`, `invalid character '<' looking for beginning of value`"
        cause "The host is a web site, a login page, a load balancer without a backend, or the registry is below another path."
        detection "`/v2/` answers neither 200 nor 401, and no answer has a registry's format."
        fix "Open https://HOST/v2/ and see what answers; then correct the host in the image's name, or the route in front of the registry."
        Registry5xx = "registry_5xx", Critical, Now, [];
        "The server answers with an internal error (5xx)"
        symptom "`unexpected status ...: 500 Internal Server Error`, `502 Bad Gateway`, `503 Service Unavailable`"
        cause "The registry, its token service, its storage or a load balancer in front of them is overloaded or broken."
        detection "The status is in the 500s; the finding names the leg that sent it."
        fix "Try again in some minutes; then contact the owner of that server, with the time and status in the report."
        ManifestUnknown = "manifest_unknown", Critical, Now, [];
        "The tag or digest, or the whole repository, is not found"
        symptom "`manifest unknown`; containerd: `...: not found`"
        cause "The tag or the repository is misspelled, was never pushed, or was removed by a retention rule."
        detection "The answer is 404, or MANIFEST_UNKNOWN. Most registries, distribution among them, answer the same for a tag and for a repository that does not exist: the confidence is medium then. It is high if the answer is about the tag alone (Harbor: `artifact ... not found`), or if the registry names a manifest in an index that it doesn't have. Registries may also answer like this if the client may not see the repository."
        fix "Look for the repository in the registry's console, then for the tag (`skopeo list-tags` shows both); then correct the image's name, or push the image again."
        ImageNameInvalid = "image_name_invalid", Critical, Now, [];
        "The image's name is invalid"
        symptom "`InvalidImageName`; `couldn't parse image name ...: invalid reference format`"
        cause "The repository has upper case, a scheme before it, a variable that was not filled in, or white space."
        detection "The kubelet reports it in the pod's event (docs/pulls.md); `pullpath probe` shows what is wrong before it sends any request."
        fix "Correct the image in the pod's template: REGISTRY/PATH:TAG, the path in lower case."
        NameUnknown = "name_unknown", Critical, Now, [];
        "The repository is not found in the registry"
        symptom "`name unknown: repository name not known to registry`"
        cause "The path in the image's name is misspelled: project, organization or name."
        detection "The answer is 404 with NAME_UNKNOWN, or names the project or repository (Harbor). If the request was anonymous and the registry has logins, the confidence is medium: it may hide the repository. A registry that answers MANIFEST_UNKNOWN for a missing repository too is reported as manifest_unknown."
        fix "Correct the path between host and tag in the image's name."
        NoPlatform = "no_platform", Critical, Now, [];
        "The image is not built for this platform"
        symptom "`no match for platform in manifest ...: not found`"
        cause "The index has no manifest for the node's processor, for instance amd64 only on an arm64 (Kunpeng) node; or only attestations (platform unknown/unknown), because the image itself was removed or not copied."
        detection "The evidence has the platforms of the index and the required one."
        fix "Build and push the image for this platform too, or keep the pod off such nodes with a nodeSelector on kubernetes.io/arch."
        ManifestUnsupported = "manifest_unsupported", Critical, Now, [];
        "containerd does not support this kind of manifest"
        symptom "`media type ... is no longer supported since containerd v2.0`; `unsupported manifest`"
        cause "The image is in schema 1 format, or the reference is an artifact that is not an image (a chart, a signature)."
        detection "The evidence has the media type as the registry states it."
        fix "Push the image again with a current client, and check that the reference is an image's."
        ManifestInvalid = "manifest_invalid", Critical, Now, [];
        "The manifest can't be read"
        symptom "`failed to unmarshal ...`, `unexpected end of JSON input`"
        cause "The registry's answer is not a manifest: its storage is damaged, or something in front of it answers 200 with its own page."
        detection "The evidence has the place where reading it failed."
        fix "Push the image again. If other images of the registry fail too, check the proxy or load balancer in front of it."
        DigestMismatch = "digest_mismatch", Critical, Now, [];
        "The content does not match its digest"
        symptom "`failed precondition: unexpected commit digest`, `content digest ... does not match`"
        cause "The registry's storage is damaged, or a cache or proxy on the path changes content."
        detection "The digest computed from the downloaded content differs from the requested one."
        fix "Request it again past any cache or proxy; if it still differs, push the image again."
        RequestRefused = "request_refused", Critical, Now, [];
        "The server refuses the request and gives no specific reason (4xx)"
        symptom "`unexpected status ...: 400 Bad Request`, `... 406 Not Acceptable`, `... 416 ...`"
        cause "A filter, a proxy or a gateway in front of the registry rejects something about the request: its method, its headers, its length."
        detection "The status is in the 400s and states nothing about credentials or content."
        fix "Check the log of the server that answers there for the time in the report, and let the registry's requests pass."
        HeadRefused = "head_refused", Critical, Now, [];
        "The registry answers GET for the manifest and refuses HEAD"
        symptom "`...: not found`, `unexpected status from HEAD request to ...: 403 Forbidden`, and `curl` shows the manifest"
        cause "A proxy cache knows only what was fetched before, or the storage's signed URL is valid for GET only. containerd sends HEAD first and does not try GET, unless the answer is 405."
        detection "HEAD is refused, and GET of the same manifest succeeds. That GET may have filled a cache: the next pull may then succeed."
        fix "Let the registry, or the cache in front of it, answer HEAD of manifests as it answers GET; or answer 405, after which containerd uses GET."
        ContentEncoding = "content_encoding", Critical, Now, [];
        "Content arrives with an encoding that containerd does not decode"
        symptom "`unsupported Content-Encoding algorithm`, `unexpected commit digest`, `failed size validation`"
        cause "A proxy, a cache or a web server in front of the registry compresses content that it passes on, or labels a layer's own compression as Content-Encoding."
        detection "The evidence has the Content-Encoding of the answer, and the result of decoding it."
        fix "Switch compression off for the registry's paths in the proxy, cache or web server in front of it."
        ArtifactNotImage = "artifact_not_image", Warning, Now, [];
        "The reference is an artifact that no container can start from"
        symptom "The pull succeeds; then `mismatched image rootfs`, `no command specified`, `exec format error` or an empty root file system"
        cause "The reference is an artifact in the form of an image: a Helm chart, a signature, a WebAssembly module, an attestation."
        detection "The media types of the configuration and of the layers show it. Which of them are pulled depends on containerd's release."
        fix "Correct the reference to that of the image, or give the pod a runtime that runs this kind of artifact."
        RegistryPolicy = "registry_policy", Critical, Now, [];
        "A policy, a quota or a plan of the registry forbids the pull"
        symptom "`412 Precondition Failed`, `402 Payment Required`, `cannot be pulled due to configured policy`, `blocked by Xray`"
        cause "The registry has the image and does not serve it: it has vulnerabilities, is not signed, is in quarantine, or the account, the license or the namespace behind it is suspended or used up."
        detection "The message of a real pull has the registry's words or one of these statuses (docs/pulls.md). A check reports the status as request_refused."
        fix "Read the registry's own message, and ask its administrator: fix the image, sign it, exempt it from the policy, or settle the account."
        RateLimited = "rate_limited", Critical, Now, [];
        "The registry's rate limit is exceeded"
        symptom "`429 Too Many Requests`, `toomanyrequests: You have reached your pull rate limit`"
        cause "There are too many pulls for this account or, without one, from this public address: all nodes behind one NAT gateway count together. A token service limits logins, and a storage simultaneous downloads."
        detection "The answer is 429, with Retry-After and the rate-limit headers if the registry sends them; the finding names the leg that sent it. A layer that was refused while others were being sent is requested once more, alone."
        fix "It ends by itself when the window resets (Retry-After, if sent). To pull now, use an account (imagePullSecrets), or copy the image to a registry of your own (on Huawei Cloud: SWR, SoftWare Repository for Container)."
        RateLimitLow = "rate_limit_low", Warning, Now, [];
        "The registry's rate limit is nearly used up"
        symptom "None yet"
        cause "As rate_limited; a tenth or less of the allowed pulls is left."
        detection "The rate-limit headers of the manifest request show it."
        fix "Pull with an account, or copy the image to a registry of your own."
        KubeletQps = "kubelet_qps", Warning, Now, [];
        "The kubelet limits its own pulls (registryPullQPS)"
        symptom "`pull QPS exceeded`"
        cause "More pulls were requested than registryPullQPS (5) and registryBurst (10) allow. The registry is not the cause."
        detection "The kubelet's own message is in the event of a real pull (docs/pulls.md): no request was sent."
        fix "Raise registryPullQPS in the node pool's kubelet settings."
        MirrorOrder = "mirror_order", Warning, Now, [];
        "Broken mirrors are tried first; the kubelet's error may hide the real cause"
        symptom "Pulls start late; the error names one host only"
        cause "hosts.toml lists hosts that do not work before the one that does. containerd tries them again for the tag, for each manifest and for each layer, and shows one error for all."
        detection "Each host of hosts.toml is checked on its own, in containerd's order, until one serves the layer. The evidence has the cause of each failure, what it costs, and whose error containerd would show."
        fix "Fix or remove the hosts named in the report (`pullpath probe IMAGE`, or the node's status page), in certs.d/REGISTRY/hosts.toml on the nodes; no restart is needed. A `dial_timeout` of a second or two limits what a dead mirror costs (containerd 2.1 or later)."
        MirrorInsecure = "mirror_insecure", Warning, Now, [];
        "The certificate of a mirror is not verified (skip_verify)"
        symptom "None: the pull succeeds"
        cause "hosts.toml sets skip_verify for that host, so anyone on the path can read the password and change what a tag refers to."
        detection "The evidence has the setting in hosts.toml, and the result of verifying the certificate. Pullpath sends no credential over such a connection; if one is required, whether a pull would succeed stays unknown."
        fix "Put the mirror's authority into `ca` in hosts.toml, and remove skip_verify."
        MirrorNoFallback = "mirror_no_fallback", Info, Now, [];
        "No other host serves the image if the mirror fails"
        symptom "None while the mirror serves; when it fails, every pull fails with the error of the registry or of the mirror"
        cause "A mirror serves the image, and the registry that containerd tries after it would not: it can't be reached from this node, does not have the image, or refuses the credential."
        detection "If a mirror serves all of an image, the last host of hosts.toml is queried once for the manifest (HEAD). The result does not affect the verdict."
        fix "No action is needed if nodes are meant to pull through the mirror alone. Otherwise open the route to the registry or give it the right credential, or list a second mirror in hosts.toml."
        HostsTomlInvalid = "hosts_toml_invalid", Warning, Now, [];
        "containerd's registry settings are invalid or ignored"
        symptom "The mirror never receives a request; or `unable to read CA cert`, `unable to load CA cert`, `failed to load X509 key pair` for every pull; or `unknown service runtime.v1.ImageService`, since the CRI plugin has not loaded"
        cause "A file in certs.d can't be decoded and is skipped, a setting is misspelled or in the wrong table, or a certificate that it names can't be read. Or config.toml has names of another version, or a combination of settings with which containerd's CRI plugin does not load (`mirrors` beside `config_path`)."
        detection "The files are read as the node's release of containerd reads them, imports included. What makes every pull fail is critical; what is ignored is a warning."
        fix "Correct the file and key named in the report (`pullpath probe IMAGE`, or the node's status page). containerd reads config.toml only when it starts: restart it after a change there."
        RuntimeSettingsUnknown = "runtime_settings_unknown", Undecided, Now, [];
        "The pull depends on containerd settings that are not known"
        symptom "No message of its own; Pullpath reports the result of the pull as unknown"
        cause "A file that config.toml imports can't be read from this vantage point, or a file was changed after containerd started, which still uses what it read then."
        detection "config.toml and its imports take effect when containerd starts: if its socket is visible, their times are compared with the socket's. The pull is then judged with their current content and without it."
        fix "Restart containerd (`systemctl restart containerd`) if a file is newer than it; otherwise give Pullpath the files that are missing."
    }
    "Layers and storage" {
        RedirectBlob = "redirect_blob", Critical, Now, [NoEgress, AddressOverlap, DnsStale, DnsHijack, ProxyMisconfigured, ReversePathFilter, SourceAddress];
        "The registry can be reached, but the storage of its layers can't"
        symptom "`failed to copy: httpReadSeeker: failed open: failed to do request: Get \"https://<storage>...\": dial tcp ...`"
        cause "The registry redirects downloads to another host (object storage, a CDN), and the path to that host is closed."
        detection "The registry and token legs succeed, and no address of the redirect's host answers a SYN. Any other fault of that leg is reported with its own cause (dns_nxdomain, tcp_refused, local_policy, …), and the evidence names the place."
        fix "Open the path to that host (routes, firewalls). On Huawei Cloud, SWR keeps layers in OBS (Object Storage Service), so OBS needs its VPC endpoint or route as well. Or switch redirects off in the registry (distribution: storage.redirect.disable)."
        RedirectUntrusted = "redirect_untrusted", Undecided, Now, [];
        "The registry redirects layers to an unsafe address"
        symptom "No message of its own"
        cause "The redirect leads to a link-local, metadata or loopback address, or leaves https for plain http."
        detection "Pullpath follows only plain http (a layer is checked against its digest, and no credential goes there); it is then a warning. Nothing is sent to the others, and whether the pull would succeed is unknown."
        fix "Correct the storage or CDN address in the registry's configuration."
        RedirectBroken = "redirect_broken", Critical, Now, [];
        "The redirect to a layer is a loop or has no valid target"
        symptom "`stopped after 10 redirects`, `302 response missing Location header`"
        cause "Two or more hosts redirect to each other, or a redirect has no usable Location."
        detection "The evidence has the hosts that the redirects went through."
        fix "Correct the redirect in the registry, or in the load balancer in front of it."
        RedirectLoc = "redirect_loc", Warning, Later, [];
        "The registry's redirect depends on the client's address"
        symptom "403 or slow downloads on some nodes only"
        cause "A registry that redirects according to the client's address sends some nodes to a region that refuses them or is far away."
        detection "Nodes with different public addresses are redirected to different hosts."
        fix "Pin a mirror in hosts.toml, or copy the image to a registry in your region."
        BlobUnknown = "blob_unknown", Critical, Now, [];
        "A layer named in the manifest is missing"
        symptom "`failed to copy: ... 404 Not Found`, `blob unknown to registry`"
        cause "The storage lost the layer (a cleanup that went too far, an interrupted copy)."
        detection "The answer is 404 for the digest of a layer that the manifest names."
        fix "Push the image again."
        BlobDenied = "blob_denied", Critical, Now, [];
        "The storage refuses to serve a layer"
        symptom "`failed to copy: httpReadSeeker: failed open: unexpected status code ...: 403 Forbidden`"
        cause "The signed URL is refused because its time is over, the registry's clock differs, or its access key is not valid; the bucket does not exist; or the policy of a VPC endpoint, a bucket or an allow-list of addresses excludes this client."
        detection "The storage answers 401 or 403, or with an error code about its bucket, key or signature (S3, OBS, OSS, COS, Google Cloud Storage, Azure). AccessDenied without a reason may be any of its rules, and an answer without a code may be that of a filter: the confidence is medium then."
        fix "Follow the storage's error code. AccessDenied: allow the registry's bucket in the VPC endpoint's policy, or this network's address at the storage. RequestTimeTooSkewed or an expired signature: fix the registry's clock. NoSuchBucket, ContainerNotFound, InvalidAccessKeyId, SignatureDoesNotMatch: correct the storage settings of the registry."
        LayerInvalid = "layer_invalid", Critical, Now, [];
        "A layer can't be unpacked"
        symptom "`failed to extract layer`, `wrong diff id calculated on extraction`, `archive/tar: invalid tar header`"
        cause "The layer is not an archive, or not the one that the image's configuration names: a build or a copy went wrong."
        detection "Small layers are unpacked in memory and compared with the configuration's diff_ids."
        fix "Build and push the image again."
        RangeIgnored = "range_ignored", Warning, Now, [];
        "The server does not support resuming downloads (Range)"
        symptom "An interrupted pull starts each layer from the beginning"
        cause "The server, or a proxy in front of it, answers a Range request with the whole layer, or refuses it. containerd 2.1.0 to 2.1.2 request parts and fail if they are refused; other releases request a part only to resume a download."
        detection "The transfer test's request for a part gets 200 or a refusal instead of 206 (RFC 9110, 14.2), while the whole layer is served."
        fix "Let the proxy or storage in front of the layers pass Range requests on."
        UnexpectedEof = "unexpected_eof", Critical, Now, [];
        "The server ends the download of a layer too early"
        symptom "`unexpected EOF`, `failed to copy: ... unexpected EOF`"
        cause "A load balancer has an idle or size limit, the server is overloaded, or a cache has half of the file."
        detection "The connection is closed in order before the announced length."
        fix "Check the timeouts and limits of the load balancer, proxy or cache in front of the storage; purge the cache."
    }
    "Network paths" {
        PathUnexpected = "path_unexpected", Warning, Now, [];
        "A server is reached over a path other than the declared one"
        symptom "Pulls work but are slow, or are billed as traffic of the public network"
        cause "The host was declared to be reached privately (network.expect), and its name leads over the public network, or the reverse."
        detection "The path class of the leg is not among those declared for its host."
        fix "Check the addresses first: a name server of the wrong network returns the wrong ones. Then check the route and the endpoint; `pullpath probe --why` shows the evidence for the class."
        PathMixed = "path_mixed", Warning, Now, [];
        "The addresses of a host name are reached over different paths"
        symptom "Pulls differ from one to the next: fast and slow, or successful and timed out"
        cause "The name has addresses of several path classes, for instance a private one beside a public one."
        detection "Each address of one family is classified on its own, and the classes differ."
        fix "Make the name servers of this network return addresses of one kind."
        PrivateUnmapped = "private_unmapped", Info, Now, [ReversePathFilter, SourceAddress];
        "The path to a private address is not known"
        symptom "No message of its own"
        cause "The address is private, and in none of the ranges that the kernel, the cloud or the configuration know."
        detection "VPC, peering, Direct Connect and VPN look alike from inside; round trips and segment sizes only suggest one. It is reported if the address is not reached: which path is missing depends on which there should be."
        fix "Declare the range under network.cidrs of the configuration. The hint has a line for each class; the route of the range in the VPC's route table decides which is right."
        AddressOverlap = "address_overlap", Warning, Now, [];
        "Two networks use the address range of this server"
        symptom "Timeouts to an address that works elsewhere, or the wrong host answers"
        cause "The far network's range overlaps one of this VPC, of this cluster's pods or of a bridge on this machine. The local route always wins: packets never leave for the far host."
        detection "The address is declared as one of another network (network.cidrs), and is inside the VPC's range (by the metadata service, or declared as intranet), the network of one of this machine's interfaces, or a range that the kernel sends to pods or containers. In the range of the pods, it is reported without a declaration too if the server is not reached. It is critical if nothing answers, or another host: a closed port, a certificate for another name."
        fix "Renumber one of the networks, or reach the far host through a private NAT gateway or a VPC endpoint. `ip route get ADDRESS` shows where this machine sends it."
        EipAnnotationStale = "eip_annotation_stale", Warning, Now, [];
        "The pod's egress address differs from the EIP in its annotation"
        symptom "Allow-lists of registries refuse the pod"
        cause "The EIP (Elastic IP) was unbound or replaced after the annotation was written, or packets leave through SNAT (source NAT)."
        detection "The source address that others see (network.egress) differs from yangtse.io/allocated-ipv4-eip."
        fix "Recreate the pod: the annotation is written only once."
        NoEgress = "no_egress", Critical, Now, [ReversePathFilter, SourceAddress];
        "This network has no egress to the public network"
        symptom "Every public registry times out: `dial tcp ...:443: i/o timeout`"
        cause "The subnet has neither an SNAT (source NAT) rule, with a route to its NAT gateway, nor an EIP (Elastic IP)."
        detection "The registry is not reached, and neither is any of the other public hosts in network.controls; no HTTP echo has reported a source address either."
        fix "Add an SNAT (source NAT) rule on the NAT gateway for the subnet that the packets leave from (the node's, or on CCE Autopilot the container subnet), or bind an EIP (Elastic IP). An EIP takes precedence over SNAT."
    }
    "Slow pulls" {
        PullNoProgress = "pull_no_progress", Critical, ByTransfer, [];
        "A pull stalls until containerd cancels it"
        symptom "`cancel pulling image ... because of no progress in 5m0s`; the event shows only `context canceled`"
        cause "No byte arrived for five minutes: the network stalled, or the disk accepted no more data."
        detection "All streams of the transfer test went silent after their first bytes. One test is shorter than containerd's timer, so it is a warning; slowness alone never triggers that timer."
        fix "Fix the stall in the network or on the disk; a longer timer helps only if the rate is fine."
        Deadline = "deadline", Critical, Now, [];
        "The pull takes longer than the time allowed"
        symptom "`context deadline exceeded`"
        cause "The sum of all phases is longer than the time allowed."
        detection "The event of a real pull reports it and names no phase (docs/pulls.md); a check of that image on that node has the phases with their times."
        fix "Check the image on that node with `pullpath probe`, and fix the cause of the phase that takes the time."
        BwEipCap = "bw_eip_cap", Warning, ByTransfer, [];
        "The EIP's bandwidth limits the pull"
        symptom "A flat rate near the purchased bandwidth; all pulls slow together"
        cause "The EIP (Elastic IP), or the EIP of the NAT gateway, has less bandwidth than the image needs; 5 Mbit/s is the default of a pod's EIP."
        detection "The leg leaves through an EIP or SNAT (source NAT), more connections have the same total, a queue or losses show, and the plateau is the declared size (the pod's annotation, network.eip_bandwidth_mbit), or 10 Mbit/s if that is smaller. Or a host elsewhere (--control-url) shares the same total."
        fix "Buy more than 10 Mbit/s for the EIP: below that, inbound is 10 Mbit/s anyway. Or use SWR (SoftWare Repository for Container) in the region."
        BwCap = "bw_cap", Warning, ByTransfer, [];
        "Something limits the total rate; on which side is unknown"
        symptom "A flat rate"
        cause "There is a limit on this side, on the path, or at the registry."
        detection "More connections have the same total, and a queue or losses show: a shaper or policer. The finding names what would decide the side."
        fix "Declare the bandwidth (network.eip_bandwidth_mbit), or name a control host (--control-url), to find out which side limits the rate."
        BwPerFlow = "bw_per_flow", Warning, ByTransfer, [];
        "Each connection has its own rate limit"
        symptom "One layer is slow however fast the network is"
        cause "The registry or CDN limits each connection, or each request."
        detection "The total grows with the number of connections, without losses and without a full window."
        fix "Raise max_concurrent_downloads in containerd, or ask the registry's owner about the limit."
        BwWindow = "bw_window", Warning, ByTransfer, [];
        "The TCP window is too small for the distance"
        symptom "Slow over long distances only"
        cause "The receive buffer on this node, or the send buffer of the server, holds less than a round trip's worth of data."
        detection "The total grows with the number of connections. This node's buffer: the rate times the round trip is the window that is offered, and that does not grow. The server's: bytes arrive in bursts, one in each round trip."
        fix "Raise net.ipv4.tcp_rmem on this node if the buffer is its own, otherwise the server's tcp_wmem."
        BwLoss = "bw_loss", Warning, ByTransfer, [];
        "Packets are lost on the path"
        symptom "A pull runs for an hour"
        cause "A link loses packets, or a policer drops what exceeds a rate."
        detection "Segments arrive out of order, and the total grows with the number of connections. (If it does not grow, a policer drops what exceeds its rate: bw_cap.)"
        fix "Open a ticket with the operator of the path, with the numbers in the report."
        BwThrottle = "bw_throttle", Warning, ByTransfer, [];
        "The first megabytes are fast, then the rate drops"
        symptom "Small images are fast, large ones are very slow"
        cause "A token bucket at the registry, the CDN or the NAT gateway limits the rate."
        detection "A megabyte or more, and two seconds' worth, arrived ahead of the rate that lasts: the knee of a token bucket."
        fix "Copy the image to a registry of your own."
        BwRemote = "bw_remote", Warning, ByTransfer, [];
        "The registry's side limits the rate"
        symptom "Only this registry is slow"
        cause "The registry or its storage sends slowly."
        detection "A control host (--control-url) is faster at the same time, and does not take anything from the registry's rate."
        fix "Copy the image to a registry in your region, or ask the registry's owner."
        BwNode = "bw_node", Warning, ByTransfer, [];
        "The node's own bandwidth limits the rate"
        symptom "One node, or one instance type, pulls more slowly than its neighbors"
        cause "The cloud limits the bandwidth of this instance."
        detection "The plateau equals instance_max_bandwidth from the metadata service. Without metadata, several nodes have to be compared."
        fix "Use a larger instance type, or drain the node."
        BwUplink = "bw_uplink", Warning, ByTransfer, [];
        "Uploads from this node fill the uplink"
        symptom "Everything is slow while a backup, a push or log shipping runs"
        cause "Other programs on this node send as much as the uplink carries; requests and acknowledgements of the download wait in its queue."
        detection "Round trips took longer than the shortest one before a byte of a layer was read, the network device sent much besides, and the download adds no queue of its own."
        fix "Limit the rate of the uploads, or buy more upstream bandwidth."
        BwSelf = "bw_self", Info, ByTransfer, [];
        "Pullpath itself limited the measurement"
        symptom "None"
        cause "Pullpath's own CPU limit throttled it, or it did not read the data that had arrived."
        detection "The cgroup's throttling counters, this process's CPU time, and unread bytes during the test show it."
        fix "Raise Pullpath's CPU limit; the sample does not count."
        TtfbSlow = "ttfb_slow", Warning, ByTransfer, [];
        "The first byte of a layer arrives late"
        symptom "Every layer starts late"
        cause "A cache is cold, or the storage is slow to open a file."
        detection "A second fetch of the same bytes distinguishes the two."
        fix "Slow storage: ask its owner. Cold cache: no action is needed, or pull through a mirror."
        ThroughputLow = "throughput_low", Warning, ByTransfer, [];
        "The pull would take longer than allowed"
        symptom "Pods stay in ContainerCreating for minutes; rollouts end with `ProgressDeadlineExceeded`"
        cause "Layers arrive too slowly for the size of this image and the time allowed."
        detection "The sustained rate of the transfer test and the compressed size of this platform's layers are compared with --expect-pull-within, or else with the workload's progressDeadlineSeconds (600 s)."
        fix "Buy the bandwidth that the hint names. Or bring the image nearer (on Huawei Cloud: a copy in SWR, SoftWare Repository for Container, in this region, through a VPC endpoint), or make it smaller."
        DiskUnpack = "disk_unpack", Warning, Now, [];
        "Unpacking on the node limits the pull, not the network"
        symptom "Pulls are slow on a fast network"
        cause "Unpacking waits for the node's disk, or for its processors."
        detection "Real pulls from a registry reach less than a third of the rate that nodes measure for it (cluster.node_rates_mbit), without waiting for one another. It is not reported if that rate is not configured."
        fix "Use a faster disk for containerd's directory (/var/lib/containerd), or a node with more processors."
        DiskFull = "disk_full", Critical, Now, [];
        "The node's disk has no room for the image"
        symptom "`no space left on device`, `disk quota exceeded`"
        cause "containerd's directory is on a disk, or within a quota, that is full."
        detection "The event of a real pull has the runtime's message (docs/pulls.md)."
        fix "Remove unused images on that node (`crictl rmi --prune`), or give it a larger disk; `df -h` and `df -i` of /var/lib/containerd show what is full. The kubelet's imageGCHighThresholdPercent sets when it begins to clean up by itself."
        SerialPull = "serial_pull", Info, Now, [];
        "Pulls on the node wait for one another"
        symptom "Pods wait behind one large image"
        cause "serializeImagePulls is on in the kubelet (the default), or maxParallelImagePulls is small."
        detection "The kubelet's events have the pull's time with and without waiting (since Kubernetes 1.28), and more of it is waiting."
        fix "Set serializeImagePulls to false and maxParallelImagePulls to a small number in the node pool's kubelet settings; make the largest images smaller."
        Intermittent = "intermittent", Undecided, Now, [];
        "The pull fails intermittently"
        symptom "A retry works"
        cause "The servers answer the same request differently: several behind one name differ, a cache is being filled, or the number of requests at a time or in a period is limited."
        detection "If the runtime's release is not known, the check is made more than once. One check failed where another, under rules that do the same there, did not. Whether a pull would succeed is unknown. The daemon reports it as a warning if a cause, or a failure, comes and goes in the last ten `reach` checks of a target: the evidence has the causes, and in how many checks each was found."
        fix "Probe several times, with --runtime, and compare the answers of each address of the name; then look for a limit on connections or requests at the load balancer."
    }
    "The node itself" {
        NodeStorage = "node_storage", Critical, Now, [];
        "The node can't unpack or store the image"
        symptom "`failed to extract layer`, `failed to prepare extraction snapshot ... not found`, `ref ... locked: unavailable`, `failed to register layer`, `input/output error`"
        cause "The runtime's store on the node is damaged, locked or not writable, or its snapshotter or storage driver fails: a lost snapshot, a full or faulty disk, missing rights or user IDs, a plugin that does not run."
        detection "The message of a real pull has the runtime's words (docs/pulls.md): the content had arrived, or was never requested. No registry is at fault, and a check of the network would find nothing."
        fix "Check the runtime's log and the disk on that node (`journalctl -u containerd`, `dmesg`, `df -h` and `df -i` of its directory). Remove the image and pull it again (`crictl rmi IMAGE`); if that fails in the same way, drain the node, stop the runtime and clear its store. If other nodes fail on this image alone, build it again."
        RuntimeFault = "runtime_fault", Critical, Now, [];
        "The node's container runtime does not answer, or fails itself"
        symptom "`dial unix /run/containerd/containerd.sock: connect: no such file or directory`, `unknown service runtime.v1.ImageService`, `Cannot connect to the Docker daemon`"
        cause "The runtime is stopped, is starting or crashes, its socket is elsewhere or not accessible, or its CRI plugin has not loaded."
        detection "The message of a real pull has it (docs/pulls.md). No registry received a request."
        fix "Check the runtime on that node (`systemctl status containerd`, `journalctl -u containerd`), start it, and compare its socket with the one that the client uses. For `unknown service`, correct config.toml: the CRI plugin is disabled or has not loaded."
        ImagePolicy = "image_policy", Critical, Now, [];
        "A policy of the node or the cluster refuses the image"
        symptom "`SignatureValidationFailed`, `Source image rejected`, `image verifier ... blocked pull`, `admission webhook ... denied the request`"
        cause "A signature policy (policy.json, sigstore, an image verifier of containerd, content trust), a list of blocked registries (registries.conf) or an admission controller does not accept this image."
        detection "The message of a real pull has it (docs/pulls.md). The registry is not at fault."
        fix "Sign the image with a key that the policy accepts, or correct the policy on the node or in the cluster: policy.json and registries.d, registries.conf, the verifier's or the admission controller's rules."
        ImageEncrypted = "image_encrypted", Critical, Now, [];
        "The image is encrypted, and the node can't decrypt it"
        symptom "`missing private key needed for decryption`, `failed to get stream processor for application/vnd.oci.image.layer.v1.tar+gzip+encrypted`"
        cause "The layers are encrypted (OCIcrypt), and the node has no matching key or no decoder."
        detection "The message of a real pull has it (docs/pulls.md). The layers arrived."
        fix "Give the node the private key and the decoder (containerd: stream_processors with ctd-decoder and its key directory; CRI-O: decryption_keys_path), or use an image that is not encrypted."
        ShortName = "short_name", Critical, Now, [];
        "The node's settings do not say from which registry a short name is pulled"
        symptom "`short-name \"nginx\" did not resolve to an alias and no unqualified-search registries are defined`"
        cause "The image's name has no registry, and registries.conf has no alias or search registry for it, or has several and does not allow a choice. CRI-O and podman do not assume docker.io."
        detection "The message of a real pull has it (docs/pulls.md). No request was sent."
        fix "Write the registry before the name (docker.io/library/nginx:1.27), or set unqualified-search-registries in /etc/containers/registries.conf on the nodes."
    }
    "Everything else" {
        ReleaseDecides = "release_decides", Undecided, Now, [];
        "Can't determine whether the pull works: the containerd version is unknown"
        symptom "The same image is pulled on some nodes only"
        cause "Releases treat the registry's answers differently, and which one pulls is not known here."
        detection "The check is made under the rules of each line of releases, and the results differ; the evidence states each result."
        fix "Name the runtime with --runtime (for instance `containerd://1.7.24`; `kubectl get node -o wide` shows it)."
        ProbeLimit = "probe_limit", Undecided, Now, [];
        "containerd can handle this answer, and Pullpath can't"
        symptom "No message of its own"
        cause "The server answers in a way that containerd accepts and Pullpath does not: a content encoding, a document of unusual size, a body that ends early again and again, more requests than a check makes."
        detection "The evidence has the answer as observed. Whether a pull would succeed is unknown."
        fix "Pull the image once on the node by hand (`crictl pull IMAGE`) to see what containerd does with it."
        OwnLimits = "own_limits", Undecided, Now, [];
        "Pullpath itself met a limit, so a part of the check was not made"
        symptom "No message of its own: pulls are not affected by the limits of Pullpath's process"
        cause "Pullpath's own process has too many files open (EMFILE), may start no further thread or program (EAGAIN), got no memory or buffer from the kernel (ENOMEM, ENOBUFS), has no free port in its network namespace, or did not get enough CPU to see an answer in time. ENFILE is the limit of the whole node, and pulls may meet it as well."
        detection "By the kernel's error, wherever a check opens a file or socket or starts a program; and by timers that fire much too late. The evidence names the limit. Other findings of such a check may follow from it and are listed as consequences (of a lack of CPU only if the check also has silence or a closed connection); whether a pull would succeed is unknown, unless the check got the image in spite of it."
        fix "Raise the limit that the evidence names: open files (`ulimit -n`), processes (pids), memory, or CPU."
        Unexplained = "unexplained", Critical, Now, [];
        "A phase failed for a reason that Pullpath does not know"
        symptom "The error in the evidence"
        cause "Not known."
        detection "The evidence has the fault as observed."
        fix "Send the JSON report (`-o json`; it contains no secret) to Pullpath's maintainers, so that they can name the cause."
    }
}

/// An entry of the catalogue: the texts of a cause, and how rules and reports treat it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The stable code, as [`Cause::code`] returns it.
    pub code: &'static str,
    /// The heading of the catalogue that lists it.
    pub(super) area: &'static str,
    /// The severity of its findings, unless a rule sets another one.
    pub severity: Severity,
    /// If it is critical, something that decides the pull was not observed, and the verdict is unknown.
    pub leaves_undecided: bool,
    /// What is wrong, in one line of at most about 70 characters.
    pub title: &'static str,
    /// What users see: messages in kubelet events, in `crictl` and in containerd's log, verbatim.
    pub symptom: &'static str,
    /// What happens, and why it makes the pull fail or slow.
    pub cause: &'static str,
    /// How Pullpath detects it, and distinguishes it from similar causes.
    pub detection: &'static str,
    /// What to do: the likeliest action first, then alternatives.
    pub fix: &'static str,
    /// Root causes: this one is their consequence if both are found on the same leg.
    pub masked_by: &'static [Cause],
    /// Whether rules of this version detect it, and from which evidence.
    pub detected: Detected,
}

/// What a cause does to a pull, as the table above states it. It becomes a severity and `leaves_undecided`.
enum Grade {
    /// The pull fails.
    Critical,
    /// Something that decides the pull could not be observed.
    Undecided,
    /// The pull succeeds, but is slow or at risk.
    Warning,
    /// Worth knowing; the pull is not affected.
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

/// Whether this version detects the cause, and from which evidence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Detected {
    /// Detected by checks, by `pullpath lint`, or from the events of real pulls.
    Now,
    /// Detected only by a transfer test, since it shows in how layers download.
    ByTransfer,
    /// Not detected yet, only explained: it requires a comparison of several nodes.
    Later,
}

/// The text is not the code of any cause.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no cause has this code")]
pub struct UnknownCode;

impl Cause {
    /// Whether only a transfer test detects it.
    pub fn is_of_transfer(self) -> bool {
        self.entry().detected == Detected::ByTransfer
    }
}

impl FromStr for Cause {
    type Err = UnknownCode;

    /// Takes a code as it is printed, or with capitals and hyphens (`TLS_NAME`, `tls-name`), and codes of earlier
    /// versions.
    ///
    /// # Errors
    ///
    /// If no cause has this code.
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let code = text.trim().to_ascii_lowercase().replace('-', "_");
        let renamed = RENAMED.iter().find(|(old, _)| *old == code);
        let mut all = Self::ALL.iter().copied();
        renamed
            .map(|(_, cause)| *cause)
            .or_else(|| all.find(|cause| cause.code() == code))
            .ok_or(UnknownCode)
    }
}

/// Codes of earlier versions, each with the cause that it names.
const RENAMED: &[(&str, Cause)] = &[("proxy_miss", Cause::ProxyMisconfigured)];

impl<'de> Deserialize<'de> for Cause {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let code = Cow::<str>::deserialize(from)?;
        let unknown = |_| serde::de::Error::custom(format!("no cause has the code '{code}'"));
        code.parse().map_err(unknown)
    }
}
