//! `--proxy` as it is typed, and where the proxy is.
//!
//! Not here: what goes through it ([`crate::engine::egress`]).

use std::net::ToSocketAddrs;

use anyhow::Context;
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::exit::UsageError;
use crate::engine::egress::Proxy;

/// The port of a SOCKS proxy (RFC 1928) when none is given.
const DEFAULT_PORT: u16 = 1080;

/// Bytes that a name and a password each may have (RFC 1929).
const LOGIN: std::ops::RangeInclusive<usize> = 1..=255;

/// A proxy, by its name or address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedProxy {
    host: Host,
    port: u16,
    login: Option<Login>,
}

/// A name and a password.
#[derive(Clone, PartialEq, Eq)]
struct Login(String, String);

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

impl NamedProxy {
    /// Reads `--proxy`.
    ///
    /// # Errors
    /// It is no URL of a SOCKS5 proxy, or its name and password are no pair that could be sent.
    pub fn parse(typed: &str) -> Result<Self, UsageError> {
        let url = Url::parse(typed).ok();
        let url = url.filter(|url| matches!(url.scheme(), "socks5" | "socks5h"));
        let url = url.filter(|url| url.port() != Some(0));
        let url = url.filter(|url| matches!(url.path(), "" | "/") && url.query().is_none());
        let host = url.as_ref().and_then(|url| Host::parse(url.host_str()?).ok());
        let (Some(url), Some(host)) = (url, host) else {
            // Without what was typed: there may be a password in it.
            return Err(UsageError(
                "--proxy: is no SOCKS5 proxy; write it as socks5://host:port or socks5://name:password@host:port"
                    .into(),
            ));
        };
        Ok(Self { host, port: url.port().unwrap_or(DEFAULT_PORT), login: login(&url)? })
    }

    /// Finds its address, which is looked up here: nobody else could be asked.
    ///
    /// # Errors
    /// The name has no address.
    pub fn locate(&self) -> anyhow::Result<Proxy> {
        let found = match &self.host {
            Host::Domain(name) => (name.as_str(), self.port)
                .to_socket_addrs()
                .with_context(|| format!("--proxy {name}: cannot find its address"))?
                .next()
                .with_context(|| format!("--proxy {name}: the name has no address"))?,
            Host::Ipv4(ip) => (*ip, self.port).into(),
            Host::Ipv6(ip) => (*ip, self.port).into(),
        };
        let login = self.login.clone().map(|Login(name, password)| (name, password));
        Ok(Proxy { addr: found, login })
    }
}

fn login(url: &Url) -> Result<Option<Login>, UsageError> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decode = |part: &str| percent_decode_str(part).decode_utf8().ok().map(String::from);
    let pair = decode(url.username()).zip(url.password().and_then(decode));
    match pair.filter(|(name, word)| LOGIN.contains(&name.len()) && LOGIN.contains(&word.len())) {
        Some((name, password)) => Ok(Some(Login(name, password))),
        None => Err(UsageError(
            "--proxy: give both a name and a password, of at most 255 bytes each; write special characters as %XX"
                .into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_mean_what_they_say() {
        let table = [
            ("socks5://127.0.0.1:9050", Some("127.0.0.1:9050"), None),
            ("socks5h://127.0.0.1", Some("127.0.0.1:1080"), None),
            ("socks5://[::1]:1/", Some("[::1]:1"), None),
            ("socks5://me:p%40ss@127.0.0.1:2", Some("127.0.0.1:2"), Some(("me", "p@ss"))),
            ("socks5://me@127.0.0.1:2", None, None),
            ("socks5://:word@127.0.0.1:2", None, None),
            ("socks5://127.0.0.1:2/path", None, None),
            ("socks5://127.0.0.1:0", None, None),
            ("socks4://127.0.0.1:2", None, None),
            ("http://127.0.0.1:2", None, None),
            ("127.0.0.1:2", None, None),
            ("socks5://", None, None),
        ];
        for (typed, addr, login) in table {
            let proxy = NamedProxy::parse(typed).ok().map(|named| named.locate().unwrap());
            assert_eq!(
                proxy.as_ref().map(|proxy| proxy.addr),
                addr.map(|addr| addr.parse().unwrap()),
                "{typed}"
            );
            let login = login.map(|(name, word)| (name.to_owned(), word.to_owned()));
            assert_eq!(proxy.and_then(|proxy| proxy.login), login, "{typed}");
        }
    }

    #[test]
    fn a_password_is_not_told() {
        let error = NamedProxy::parse("socks5://me:secret@:1").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
        let named = NamedProxy::parse("socks5://me:secret@127.0.0.1:1").unwrap();
        let shown = format!("{named:?} {:?}", named.locate().unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }
}
