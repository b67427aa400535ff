//! The documents that come from the table of keys: `etc/wsd.toml` and the table of the manual.

use super::keys::{Config, keys};
use super::load::variable_of;

const HEAD: &str = "\
# The configuration of wsd: every key with its default.
#
# Take the # away before a key to set it. `wsd check -c FILE` tells everything that is wrong at
# once, and changes nothing. Over this file go the environment (WSD_WORKER_NUM=4, and
# WSD_APP_COMMAND for tables) and --set worker_num=4.
#
# Times: a number is seconds; \"250ms\", \"10s\", \"2m\", \"1h\" and \"1d\" are texts.
# Sizes: a number is bytes; \"64KiB\", \"2MiB\" and \"1GiB\" are texts.
# Relative paths start at this file.
";

/// What to set on the open internet. `scripts/attack` floods a server that has it.
const INTERNET: &str = "\
#
# For the open internet, the defaults in brackets, 0 there and here being no limit. Of
# connections_per_ip, handshakes_per_second and handshakes_burst each worker allows its part, and
# of handshakes_per_ip all, so that all workers allow worker_num times as many of these:
#
#     max_connection = 20000        # [0: what ulimit -n allows] all workers together
#     connections_per_ip = 64       # [0] of one address, or /64 of IPv6
#     handshakes_per_second = 20    # [0] new connections of one address
#     handshakes_burst = 64         # [32] of these at once
#     handshakes_per_ip = 64        # [1024] handshakes under way of one address
#     handshakes_max = 4096         # [4096] handshakes under way of one worker
#     handshake_timeout = \"5s\"      # [10s]
#     client_memory = \"256MiB\"      # [256MiB] of one worker
#     messages_per_second = 50      # [0, the chat's 20] of one client
#     messages_burst = 200          # [100] of these at once
#     bytes_per_second = \"1MiB\"     # [0] of one client
#     bytes_burst = \"4MiB\"          # [4MiB] of these at once
#     message_timeout = \"20s\"       # [60s] for a message that was begun
#     buffer_output_size = \"256KiB\" # [1MiB] of one client
#     http_keepalive_max = 1024     # [1024] of one worker
#     http_send_timeout = \"20s\"     # [60s]
";

/// The text of `etc/wsd.toml`: every key with its meaning and default, commented out.
pub fn toml_manual() -> String {
    let defaults = Config::default();
    let mut text = [HEAD, INTERNET].concat();
    let mut section = "";
    for key in keys() {
        if key.section != section {
            section = key.section;
            text.push_str(&format!("\n# ---- {section} ----\n"));
            if section.starts_with('[') {
                text.push_str(&format!("\n{section}\n"));
            }
        }
        text.push('\n');
        for line in key.doc.lines() {
            text.push_str(&format!("# {}\n", line.trim()));
        }
        let name = key.name.rsplit('.').next().unwrap_or(key.name);
        text.push_str(&format!("# ({})\n# {name} = {}\n", key.unit, (key.show)(&defaults)));
    }
    text
}

/// The table of all keys in `docs/operations.md`.
pub fn markdown_table() -> String {
    let defaults = Config::default();
    let mut text = "| key | default | written as | environment |\n|---|---|---|---|\n".to_owned();
    for key in keys() {
        let unit = key.unit.replace('|', "\\|");
        let (name, default) = (key.name, (key.show)(&defaults));
        let variable = variable_of(name);
        text.push_str(&format!("| `{name}` | `{default}` | {unit} | `{variable}` |\n"));
    }
    text
}
