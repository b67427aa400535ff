//! What Sentinels answer, as a node behind a pump has to hear it.

/// What a Sentinel says, with the ports of a pump in the place of the servers' own.
pub fn translated(said: &[u8], ports: &[(u16, u16)]) -> Vec<u8> {
    let said = String::from_utf8_lossy(said).into_owned();
    let put =
        |said: String, (theirs, pumps): &(u16, u16)| said.replace(&bulk(*theirs), &bulk(*pumps));
    ports.iter().fold(said, put).into_bytes()
}

/// A port as an element of an answer.
fn bulk(port: u16) -> String {
    let port = port.to_string();
    format!("\r\n${}\r\n{port}\r\n", port.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_hears_the_port_of_its_pump_whatever_the_number_of_digits() {
        let ports = [(6_379, 20_001), (16_380, 9_002)];
        let said = |port: &str| {
            format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len()).into_bytes()
        };
        assert_eq!(translated(&said("6379"), &ports), said("20001"));
        assert_eq!(translated(&said("16380"), &ports), said("9002"));
        assert_eq!(translated(&said("6380"), &ports), said("6380"));
        let other = b"+OK 6379 and $4\r\n63790\r\n".as_slice();
        assert_eq!(translated(other, &ports), other);
    }
}
