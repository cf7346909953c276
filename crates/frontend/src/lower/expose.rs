//! EXPOSE.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::lowering::Lowering;
use super::place::{Fallible, Place, Scope};
use crate::check::instruction;
use crate::dockerfile::mapped::Mapped;
use crate::history::plain_list;

impl<'a> Lowering<'a> {
    /// A word may expand to several ports.
    pub(super) fn expose(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        written: &[Mapped],
    ) -> Fallible<()> {
        let mut written: Vec<&Mapped> = written.iter().collect();
        written.sort_by_key(|word| word.text());
        let mut ports = Vec::new();
        for word in written {
            let words = self.expand_words(place, &scope.state, word)?.words;
            for port in words {
                let parsed =
                    parse(&port).map_err(|message| place.error("expose", word.span(), message))?;
                for warning in instruction::exposed(&port, word) {
                    self.warn_of(place, warning);
                }
                // Each becomes a text in the history and a key of the config.
                self.spend(parsed.len() * 2 * "65535/sctp".len(), place)?;
                ports.extend(parsed);
            }
        }
        let created_by = format!("EXPOSE {}", plain_list(&ports));
        let exposed = ports.into_iter().map(|port| (port, Value::Object(Map::new())));
        scope.state.config.config.exposed_ports.extend(exposed);
        self.commit(place, &mut scope.state, created_by, false)
    }
}

/// Reads `[address:][host port:]port[-port][/protocol]` as one `port/protocol` for each port. What comes before the port
/// means nothing here and is only checked.
fn parse(text: &str) -> Result<Vec<String>, String> {
    let mut parts = text.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let (host, address) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
    if port.is_empty() {
        return Err(format!("no port specified: {container}<empty>"));
    }
    let protocol = match protocol.to_lowercase() {
        protocol if protocol.is_empty() => "tcp".to_owned(),
        protocol if ["tcp", "udp", "sctp"].contains(&protocol.as_str()) => protocol,
        protocol => return Err(format!("invalid proto: {protocol}")),
    };
    let plain = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let plain = plain.unwrap_or(address);
    if !plain.is_empty() && plain.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {plain}"));
    }
    let ports = range(port).ok_or_else(|| format!("invalid containerPort: {port}"))?;
    if !host.is_empty() {
        let host_ports = range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
        if ports.len() > 1 && host_ports.len() != ports.len() {
            return Err(format!(
                "invalid ranges specified for container and host Ports: {port} and {host}"
            ));
        }
    }
    Ok(ports.map(|port| format!("{port}/{protocol}")).collect())
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| is_plain)
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_forms() {
        for (text, expected) in [
            ("80", "80/tcp"),
            ("80/TCP", "80/tcp"),
            ("53/udp", "53/udp"),
            ("0-1/sctp", "0/sctp 1/sctp"),
            ("80/", "80/tcp"),
            ("8080:80", "80/tcp"),
            ("8080-8081:80", "80/tcp"),
            ("127.0.0.1:8080:80", "80/tcp"),
            ("[::1]:8080:80", "80/tcp"),
            ("::1:8080:80", "80/tcp"),
            ("127.0.0.1::80", "80/tcp"),
            ("x", "invalid containerPort: x"),
            ("65536", "invalid containerPort: 65536"),
            ("+80", "invalid containerPort: +80"),
            ("2-1", "invalid containerPort: 2-1"),
            ("1-2-3", "invalid containerPort: 1-2-3"),
            ("/tcp", "no port specified: /tcp<empty>"),
            ("80/icmp", "invalid proto: icmp"),
            ("x:80", "invalid hostPort: x"),
            ("x:80:80", "invalid IP address: x"),
            ("1-3:1-2", "invalid ranges specified for container and host Ports: 1-2 and 1-3"),
        ] {
            let found = parse(text).map_or_else(|message| message, |ports| ports.join(" "));
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(parse("0-65535").map(|ports| ports.len()), Ok(65536));
    }
}
