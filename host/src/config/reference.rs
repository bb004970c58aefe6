//! The reference of all settings, written from the table that also reads them.

use std::fmt::Write;

use super::Config;
use super::settings::{SETTINGS, TakesEffect};

const HEAD: &str = "\
# Configuration reference

<!-- Generated from host/src/config: UPDATE_GENERATED=1 cargo test config::tests::the_reference writes it. -->

The host needs no configuration. What it finds it reads in this order, each over the one before:

1. `/usr/lib/punktfunk/host.toml` - the image's
2. what you set in the console
3. `/etc/punktfunk/host.toml`, then `/etc/punktfunk/host.d/*.toml` in the order of their names - yours
4. the file given with `--config`
5. the environment: `PUNKTFUNK_` and the key in capitals, with `__` for the dot, as in `PUNKTFUNK_GAMESTREAM__PORT`;
   lists are separated by commas
6. the command line

The console cannot change what stands in 3 to 6; it shows such a value with its place. A wrong value is passed over and
named with its file and line when the host starts; the value from before holds. A key that is not known is named and
passed over.

## Settings
";

const APPS: &str = r#"
## Apps of your own

Each `[[app]]` adds one; a later one of the same title replaces it.

| key | value | default |
|---|---|---|
| `title` | a text of 1 to 64 characters | needed |
| `display` | `"sway"` (a desktop of its own) or `"pattern"` (the test card's pictures) | `"sway"` |
| `command` | a program and its arguments, as a list of texts | needed for `"sway"` |
| `commands` | several of them, all started | |
| `art` | the absolute path of a PNG picture, 600x800 | a picture of ours |

```toml
[[app]]
title = "Terminal"
command = ["foot", "--fullscreen"]
art = "/etc/punktfunk/terminal.png"
```
"#;

/// The reference, as it lies in docs/reference/config.md.
pub fn reference() -> String {
    let defaults = Config::default();
    let mut text = HEAD.to_owned();
    for setting in SETTINGS {
        let default = match (setting.default, (setting.get)(&defaults)) {
            (Some(words), _) => words.to_owned(),
            (None, Some(value)) => format!("`{}`", value.to_toml()),
            (None, None) => "none".to_owned(),
        };
        let unit = setting.unit.map(|unit| format!(", in {unit}")).unwrap_or_default();
        let in_console = match (setting.settable, setting.takes_effect) {
            (false, _) => "cannot be set there",
            (true, TakesEffect::Now) => "holds at once",
            (true, TakesEffect::NextSession) => "holds from the next stream on",
            (true, TakesEffect::Restart) => "holds when the host starts again",
        };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n### `{}`\n\n{}\n\n- value: {}{unit}\n- default: {default}\n- console: {in_console}\n",
            setting.key,
            setting.about,
            setting.range(),
        );
    }
    text.push_str(APPS);
    text
}

/// The settings as they hold, a line each, for whoever is to help. Of apps only the number: their arguments are the
/// owner's.
pub fn in_force(config: &Config) -> String {
    let mut text = String::new();
    for setting in SETTINGS {
        // What has no default of its own names this machine or its owner.
        let value = (setting.get)(config).filter(|_| setting.default.is_none());
        let value = value.map_or_else(|| "not told".to_owned(), |value| value.to_toml());
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} = {value}", setting.key);
    }
    let _ = writeln!(text, "# apps of the owner's: {}", config.apps.len());
    text
}
