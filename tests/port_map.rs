//! Ports that a router opens, asked for of routers on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use btfs::engine::egress::{Egress, Proxy};
use btfs::engine::port_map::{Carrier, Gateway, PortMap, PortMapper};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

/// Where PCP and NAT-PMP are spoken.
const ROUTER_PORT: u16 = 5351;

/// Our port.
const PORT: u16 = 40_123;

/// Where nobody speaks them.
const WITHOUT_NAT_PMP: Ipv4Addr = Ipv4Addr::new(127, 83, 2, 1);

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// What a router was asked: "open" or "close", for what, and the port outside.
type Asked = (&'static str, Carrier, u16);

const BOTH: [Carrier; 2] = [Carrier::Tcp, Carrier::Udp];

fn gateway(router: Ipv4Addr) -> Gateway {
    Gateway { router, ssdp: SocketAddr::from((router, 1900)) }
}

/// A port mapper of this router, and where it says that we are reached.
fn mapper(gateway: Gateway) -> (PortMapper, mpsc::UnboundedReceiver<SocketAddr>) {
    let (out, told) = mpsc::unbounded_channel();
    let port = NonZeroU16::new(PORT).unwrap();
    let told_to = move |addr| out.send(addr).unwrap();
    let mapper = PortMapper::start(PortMap::At(gateway), port, BOTH, &Egress::default(), told_to);
    (mapper.unwrap(), told)
}

async fn next<T>(from: &mut mpsc::UnboundedReceiver<T>) -> T {
    timeout(LIMIT, from.recv()).await.expect("in time").expect("somebody there")
}

/// A router with NAT-PMP (RFC 6886) alone, which has given our port to somebody else and gives the next. It says so to those who
/// speak PCP, or is silent on that.
async fn nat_pmp(silent: bool) -> (Gateway, mpsc::UnboundedReceiver<Asked>) {
    let (router, socket) = at_router_port().await;
    let (tell, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut request = [0; 1100];
        loop {
            let (_, from) = socket.recv_from(&mut request).await.unwrap();
            let reply = match request[..2] {
                [0, 0] => [&[0, 128, 0, 0, 0, 0, 0, 9][..], &OUTSIDE.octets()].concat(),
                [0, opcode @ (1 | 2)] => {
                    let lifetime = &request[8..12];
                    let forget = lifetime == [0; 4];
                    let port = u16::from_be_bytes([request[6], request[7]]);
                    let given = if forget { 0 } else { port.max(PORT + 1) };
                    let carrier = BOTH[2 - usize::from(opcode)];
                    tell.send((if forget { "close" } else { "open" }, carrier, given)).unwrap();
                    let head = [0, 128 + opcode, 0, 0, 0, 0, 0, 9];
                    [&head[..], &request[4..6], &given.to_be_bytes(), lifetime].concat()
                }
                _ if silent => continue,
                _ => vec![0, 128, 0, 1, 0, 0, 0, 9],
            };
            socket.send_to(&reply, from).await.unwrap();
        }
    });
    (gateway(router), asked)
}

/// A socket where a router takes calls, at an address that nobody else uses, such as this test a second time.
async fn at_router_port() -> (Ipv4Addr, UdpSocket) {
    for last in 1..=254 {
        let router = Ipv4Addr::new(127, 83, 1, last);
        if let Ok(socket) = UdpSocket::bind((router, ROUTER_PORT)).await {
            return (router, socket);
        }
    }
    panic!("no address with a free port {ROUTER_PORT}")
}

async fn comes_through_nat_pmp(silent: bool) {
    let (gateway, mut asked) = nat_pmp(silent).await;
    let (mapper, mut told) = mapper(gateway);
    assert_eq!(next(&mut told).await, SocketAddr::from((OUTSIDE, PORT + 1)));
    for carrier in BOTH {
        assert_eq!(next(&mut asked).await, ("open", carrier, PORT + 1));
    }
    mapper.stop().await;
    for carrier in BOTH {
        assert_eq!(next(&mut asked).await, ("close", carrier, 0));
    }
}

#[tokio::test]
async fn a_router_with_nat_pmp_opens_a_port_and_closes_it_again() {
    comes_through_nat_pmp(false).await;
}

#[tokio::test]
async fn a_router_that_ignores_pcp_is_asked_by_nat_pmp() {
    comes_through_nat_pmp(true).await;
}

const DESCRIPTION: &str = r#"<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
<serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId><controlURL>/control</controlURL>
<eventSubURL>/events</eventSubURL><SCPDURL>/actions</SCPDURL>
</service></serviceList></device></deviceList></device></deviceList></device></root>"#;

/// What the service can be asked, and with which words.
fn actions() -> String {
    let argument =
        |name: &&str| format!("<argument><name>{name}</name><direction>in</direction></argument>");
    let action = |name, arguments: &[&str]| {
        let arguments: String = arguments.iter().map(argument).collect();
        format!("<action><name>{name}</name><argumentList>{arguments}</argumentList></action>")
    };
    let which = ["NewRemoteHost", "NewExternalPort", "NewProtocol"];
    let whither = ["NewInternalPort", "NewInternalClient", "NewEnabled"];
    let terms = ["NewPortMappingDescription", "NewLeaseDuration"];
    let add = action("AddPortMapping", &[&which[..], &whither, &terms].concat());
    let delete = action("DeletePortMapping", &which);
    format!("<scpd><actionList>{add}{delete}</actionList></scpd>")
}

/// A router with UPnP alone; whether it lends ports for a time.
async fn upnp(lends: bool) -> (Gateway, mpsc::UnboundedReceiver<Asked>) {
    let router = WITHOUT_NAT_PMP;
    let calls = UdpSocket::bind((router, 0)).await.unwrap();
    let gateway = Gateway { router, ssdp: calls.local_addr().unwrap() };
    let desk = TcpListener::bind((router, 0)).await.unwrap();
    let location = format!("http://{}/description", desk.local_addr().unwrap());
    tokio::spawn(async move {
        let mut call = [0; 1500];
        loop {
            let (_, from) = calls.recv_from(&mut call).await.unwrap();
            let reply = format!(
                "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLOCATION: {location}\r\n\r\n"
            );
            calls.send_to(reply.as_bytes(), from).await.unwrap();
        }
    });
    let (tell, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = desk.accept().await.unwrap();
            serve(stream, lends, &tell).await;
        }
    });
    (gateway, asked)
}

/// Answers one request.
async fn serve(stream: TcpStream, lends: bool, tell: &mpsc::UnboundedSender<Asked>) {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let start = head.len();
        stream.read_line(&mut head).await.unwrap();
        let line = head[start..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let body = String::from_utf8(body).unwrap();
    let (status, reply) = answer(&head, &body, lends, tell);
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        reply.len()
    );
    stream.write_all((head + &reply).as_bytes()).await.unwrap();
}

fn answer(
    head: &str,
    body: &str,
    lends: bool,
    tell: &mpsc::UnboundedSender<Asked>,
) -> (&'static str, String) {
    let field = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>"))?;
        Some(rest.split('<').next().unwrap().to_owned())
    };
    let port = || field("NewExternalPort").unwrap().parse().unwrap();
    let carrier = || BOTH[usize::from(field("NewProtocol").unwrap() == "UDP")];
    let soap = |inside: &str| {
        format!(
            r#"<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>{inside}</s:Body></s:Envelope>"#
        )
    };
    let response = |action: &str, inside: &str| {
        let name = format!("{action}Response");
        let service = "urn:schemas-upnp-org:service:WANIPConnection:1";
        ("200 OK", soap(&format!(r#"<u:{name} xmlns:u="{service}">{inside}</u:{name}>"#)))
    };
    match () {
        () if head.starts_with("GET /description") => ("200 OK", DESCRIPTION.to_owned()),
        () if head.starts_with("GET /actions") => ("200 OK", actions()),
        () if body.contains("AddPortMapping") => {
            if !lends && field("NewLeaseDuration").unwrap() != "0" {
                let fault = "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>\
                    <UPnPError xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>725</errorCode>\
                    <errorDescription>OnlyPermanentLeasesSupported</errorDescription></UPnPError></detail></s:Fault>";
                return ("500 Internal Server Error", soap(fault));
            }
            tell.send(("open", carrier(), port())).unwrap();
            response("AddPortMapping", "")
        }
        () if body.contains("DeletePortMapping") => {
            tell.send(("close", carrier(), port())).unwrap();
            response("DeletePortMapping", "")
        }
        () => {
            let ip = format!("<NewExternalIPAddress>{OUTSIDE}</NewExternalIPAddress>");
            response("GetExternalIPAddress", &ip)
        }
    }
}

async fn comes_through_upnp(lends: bool) {
    let (gateway, mut asked) = upnp(lends).await;
    let (mapper, mut told) = mapper(gateway);
    assert_eq!(next(&mut told).await, SocketAddr::from((OUTSIDE, PORT)));
    for carrier in BOTH {
        assert_eq!(next(&mut asked).await, ("open", carrier, PORT));
    }
    mapper.stop().await;
    for carrier in BOTH {
        assert_eq!(next(&mut asked).await, ("close", carrier, PORT));
    }
}

#[tokio::test]
async fn a_router_with_upnp_opens_a_port_and_closes_it_again() {
    comes_through_upnp(true).await;
}

#[tokio::test]
async fn a_router_that_lends_no_port_gives_it_for_good() {
    comes_through_upnp(false).await;
}

/// Answers whatever comes with bytes without sense, few and many, and at last with this.
async fn babble(socket: UdpSocket, last: String) {
    let (mut request, noise) = ([0; 1500], [0x5a; 1100]);
    loop {
        let (_, from) = socket.recv_from(&mut request).await.unwrap();
        let reply = [&[0, 0x80 | request[1]], &noise[2..]].concat();
        for len in [0, 1, 8, 12, 16, 24, 60, 1100] {
            socket.send_to(&noise[..len], from).await.unwrap();
            socket.send_to(&reply[..len], from).await.unwrap();
        }
        socket.send_to(last.as_bytes(), from).await.unwrap();
    }
}

/// A router whose answers make no sense: by PCP, by NAT-PMP, to calls, and to whoever wants its description, without end.
#[tokio::test]
async fn a_router_that_talks_nonsense_opens_nothing_and_is_left() {
    let router = Ipv4Addr::new(127, 83, 1, 6);
    let calls = UdpSocket::bind((router, 0)).await.unwrap();
    let gateway = Gateway { router, ssdp: calls.local_addr().unwrap() };
    let desk = TcpListener::bind((router, 0)).await.unwrap();
    let at = desk.local_addr().unwrap();
    tokio::spawn(babble(calls, format!("HTTP/1.1 200 OK\r\nLOCATION: http://{at}/x\r\n\r\n")));
    let port = UdpSocket::bind((router, ROUTER_PORT)).await.unwrap();
    tokio::spawn(babble(port, String::new()));
    let (mapper, mut told) = mapper(gateway);
    let (mut visitor, _) = timeout(LIMIT, desk.accept()).await.expect("in time").unwrap();
    let endless = async {
        visitor.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        while visitor.write_all(&[b'<'; 4096]).await.is_ok() {}
        std::io::Result::Ok(())
    };
    timeout(LIMIT, endless).await.expect("it hangs up").unwrap();
    mapper.stop().await;
    assert_eq!(told.recv().await, None);
}

/// The libraries open sockets of their own, so there must be no call of them beside a proxy or another interface.
#[tokio::test]
async fn no_router_is_asked_beside_a_proxy_or_a_chosen_interface() {
    let at = PortMap::At(gateway(WITHOUT_NAT_PMP));
    let port = NonZeroU16::new(PORT).unwrap();
    let proxy = Proxy { addr: "127.0.0.1:1".parse().unwrap(), login: None };
    let proxied = Egress { proxy: Some(proxy), ..Egress::default() };
    let bound = Egress { device: Some("lo".into()), ..Egress::default() };
    for (name, wanted, egress) in
        [("proxy", at, proxied), ("device", at, bound), ("off", PortMap::Off, Egress::default())]
    {
        assert!(PortMapper::start(wanted, port, BOTH, &egress, |_| {}).is_none(), "{name}");
    }
}
