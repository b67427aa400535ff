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

/// The text of `etc/wsd.toml`: every key with its meaning and default, commented out.
pub fn toml_manual() -> String {
    let defaults = Config::default();
    let mut text = HEAD.to_owned();
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
