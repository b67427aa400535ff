//! Values that hold several: lists and tables.

use std::collections::BTreeMap;
use std::path::Path;

use super::errors::Wrong;
use super::text::quote;
use super::value::{Raw, Setting};
use crate::sys::rights::Capability;

/// A type that can stand in a list.
pub trait Item: Sized {
    /// What the items are, for the documents.
    const UNIT: &'static str;

    /// Reads one item.
    fn item(text: &str, dir: &Path) -> Result<Self, Wrong>;

    /// The item as text, without quotes.
    fn text(&self) -> String;
}

impl Item for String {
    const UNIT: &'static str = "list of names";

    fn item(text: &str, _: &Path) -> Result<String, Wrong> {
        Ok(text.to_owned())
    }

    fn text(&self) -> String {
        self.clone()
    }
}

impl Item for Capability {
    const UNIT: &'static str = "list of capabilities";

    fn item(text: &str, _: &Path) -> Result<Capability, Wrong> {
        text.parse().map_err(|()| {
            let names: Vec<String> = Capability::names().collect();
            let near = super::nearest(text, names.iter().map(String::as_str));
            let right = match near {
                Some(near) => format!("did you mean {}?", quote(near)),
                None => "capabilities(7) lists all of them".to_owned(),
            };
            Wrong::new(format!("has {}, which is no capability", quote(text)), right)
        })
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl<T: Item> Setting for Vec<T> {
    const UNIT: &'static str = T::UNIT;

    fn read(raw: &Raw, dir: &Path) -> Result<Vec<T>, Wrong> {
        let mut items = Vec::new();
        for text in words(raw)? {
            items.push(T::item(&text, dir)?);
        }
        Ok(items)
    }

    fn show(&self) -> String {
        let items: Vec<String> = self.iter().map(|item| quote(&item.text())).collect();
        format!("[{}]", items.join(", "))
    }
}

/// The items of a list: a TOML array, one string, or bare text with commas.
pub fn words(raw: &Raw) -> Result<Vec<String>, Wrong> {
    match raw {
        Raw::Bare(text) => match Raw::structured(text) {
            Some(list) => words(&list),
            None => Ok(text
                .split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect()),
        },
        Raw::List(items) => items.iter().map(word).collect(),
        _ => Ok(vec![word(raw)?]),
    }
}

fn word(raw: &Raw) -> Result<String, Wrong> {
    match raw {
        Raw::Text(text) | Raw::Bare(text) => Ok(text.clone()),
        Raw::Integer(number) => Ok(number.to_string()),
        _ => Err(raw.wrong("write a list of texts, such as [\"one\", \"two\"]")),
    }
}

impl Setting for BTreeMap<String, String> {
    const UNIT: &'static str = "table of texts";

    fn read(raw: &Raw, dir: &Path) -> Result<Self, Wrong> {
        let mut map = BTreeMap::new();
        map.update(raw, dir)?;
        Ok(map)
    }

    fn show(&self) -> String {
        let items: Vec<String> =
            self.iter().map(|(key, value)| format!("{} = {}", quote(key), quote(value))).collect();
        if items.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", items.join(", ")) }
    }

    /// Adds to what is there: entries of several sources come together. A value may be a secret,
    /// so that no fault shows one.
    fn update(&mut self, raw: &Raw, _: &Path) -> Result<(), Wrong> {
        let structured = match raw {
            Raw::Bare(text) => Raw::structured(text),
            _ => None,
        };
        let Raw::Table(entries) = structured.as_ref().unwrap_or(raw) else {
            return Err(raw.wrong_unseen(TABLE_RIGHT));
        };
        for (key, value) in entries {
            if key.is_empty() || key.contains(['=', '\0']) {
                // What stands behind a = may be a secret.
                let name = key.split('=').next().unwrap_or_default();
                return Err(Wrong::new(
                    format!("has a name that begins with {}", quote(name)),
                    "use names that are not empty and hold no =",
                ));
            }
            let value = value.as_text().filter(|text| !text.contains('\0'));
            let no_text =
                || Wrong::new(format!("has {}, which is no text", quote(key)), TABLE_RIGHT);
            let value = value.ok_or_else(no_text)?;
            self.insert(key.clone(), value.to_owned());
        }
        Ok(())
    }
}

const TABLE_RIGHT: &str = "write a table of texts, such as { APP_ENV = \"production\" }";
