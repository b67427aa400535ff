//! Permissions of a file, written in octal digits.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::errors::Wrong;
use super::text::quote;
use super::value::{Raw, Setting};

/// Permissions as of chmod(1): `"0660"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mode(pub u32);

impl Setting for Mode {
    const UNIT: &'static str = "permissions in octal, such as 0660";

    fn read(raw: &Raw, _: &Path) -> Result<Mode, Wrong> {
        const RIGHT: &str = "write a text of octal digits from \"0000\" to \"0777\"";
        let text = raw.as_text().ok_or_else(|| raw.wrong(RIGHT))?;
        let digits = text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777);
        mode.map(Mode).ok_or_else(|| raw.wrong(RIGHT))
    }

    fn show(&self) -> String {
        quote(&format!("{:04o}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_octal_digits_and_nothing_else() {
        let read = |text: &str| Mode::read(&Raw::Text(text.to_owned()), Path::new(""));
        assert_eq!(read("0660").unwrap(), Mode(0o660));
        assert_eq!(read("600").unwrap().show(), "\"0600\"");
        for wrong in ["", "0888", "1777", "+660", "rw", "00660"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(Mode::read(&Raw::Integer(660), Path::new("")).is_err());
    }
}
