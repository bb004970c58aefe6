//! What can be played: the apps that come with the product, and those of the owner's configuration.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{App, AppId};
use crate::config::{AppArt, Config};
use crate::display::sway::NO_FOCUS_APP_ID;

/// An app of the owner's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppSpec {
    /// Its title, shown on the client.
    pub title: String,
    /// The display backend it runs on.
    pub display: String,
    /// The programs to start, each an argument vector. The session ends when the first of them ends.
    pub commands: Vec<Vec<String>>,
    /// Its picture.
    pub art: Option<AppArt>,
}

/// An app that was left out of the list, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its title.
    pub title: String,
    /// Why, in a sentence.
    pub reason: String,
}

/// The title of the built-in app that needs nothing: a pattern with sound.
pub const TEST_CARD: &str = "Test card";

/// The display backend of the Test card.
const TEST_CARD_DISPLAY: &str = "pattern";

/// The title of the built-in desktop. One stock client starts the app of this name unless told otherwise.
pub const DESKTOP: &str = "Desktop";

/// The apps that come with the product.
pub fn built_in() -> Vec<AppSpec> {
    vec![
        AppSpec {
            title: TEST_CARD.to_owned(),
            display: TEST_CARD_DISPLAY.to_owned(),
            commands: vec![],
            art: None,
        },
        AppSpec {
            title: DESKTOP.to_owned(),
            display: "sway".to_owned(),
            commands: desktop_programs(),
            art: None,
        },
    ]
}

/// All apps of a configuration, whether they can run here or not: the built-in ones that are wanted, then the owner's.
/// An app of the owner's replaces the built-in one of the same title.
pub fn of_config(config: &Config) -> Vec<AppSpec> {
    let is_wanted = |app: &AppSpec| match app.title.as_str() {
        _ if config.apps.iter().any(|own| own.title == app.title) => false,
        TEST_CARD => config.built_in.test_card,
        DESKTOP => config.built_in.desktop,
        _ => true,
    };
    let own = config.apps.iter().map(|app| AppSpec {
        title: app.title.clone(),
        display: app.display.name().to_owned(),
        commands: app.commands.clone(),
        art: app.art.clone(),
    });
    built_in().into_iter().filter(is_wanted).chain(own).collect()
}

/// The built-in Test card as an app that runs wherever the host does, whatever the owner offers.
pub fn test_card() -> App {
    App {
        id: app_id(TEST_CARD),
        title: TEST_CARD.to_owned(),
        display: TEST_CARD_DISPLAY.to_owned(),
        commands: vec![],
        art: None,
    }
}

/// What is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The apps, never none.
    pub apps: Vec<App>,
    /// Those that are not among them, and why.
    pub left_out: Vec<LeftOut>,
    /// Nothing that is wanted can run, so the Test card is the list.
    pub instead: bool,
}

/// The list to offer: `specs` in order, without those that cannot run here. `displays` are the backends that work.
///
/// Without any the Test card is offered, wanted or not: a client that is shown an empty list looks broken, and a version
/// of a box on which nothing can be played is taken for a bad one.
pub fn offer(specs: Vec<AppSpec>, displays: &BTreeSet<String>) -> Offer {
    let (mut apps, mut left_out) = (Vec::<App>::new(), vec![]);
    for spec in specs {
        match admit(&spec, &apps, displays) {
            Ok(id) => apps.push(App {
                id,
                title: spec.title,
                display: spec.display,
                commands: spec.commands,
                art: spec.art,
            }),
            Err(reason) => left_out.push(LeftOut { title: spec.title, reason }),
        }
    }
    let instead = apps.is_empty();
    if instead {
        apps.push(test_card());
    }
    Offer { apps, left_out, instead }
}

fn admit(spec: &AppSpec, apps: &[App], displays: &BTreeSet<String>) -> Result<AppId, String> {
    if spec.title.trim().is_empty() {
        return Err("an app needs a title".to_owned());
    }
    if !displays.contains(&spec.display) {
        return Err(format!("its display backend \"{}\" does not work here", spec.display));
    }
    let id = app_id(&spec.title);
    if apps.iter().any(|other| other.id == id) {
        return Err("another app has the same title".to_owned());
    }
    for command in &spec.commands {
        let Some(program) = command.first() else {
            return Err("one of its commands is empty".to_owned());
        };
        if find_program(program).is_none() {
            return Err(format!("the program \"{program}\" is not installed"));
        }
    }
    Ok(id)
}

/// Clients keep pictures and shortcuts by an app's number, so it follows from the title alone: the FNV-1a hash, cut to
/// the positive 31-bit numbers that every client can hold (spec: gamestream 2.9).
pub fn app_id(title: &str) -> AppId {
    let hash = title
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    AppId((hash & 0x7fff_ffff).max(1))
}

/// Where a program lies, looked up as a shell would.
pub fn find_program(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Path::new(program).is_file().then(|| program.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Two terminals side by side: a shell to type into, which has the keyboard, and something that moves.
fn desktop_programs() -> Vec<Vec<String>> {
    const TERMINAL: [&str; 6] = [
        "foot",
        "--config=/dev/null",
        "--override=font=monospace:pixelsize=17",
        "--override=pad=14x14center",
        "--override=colors.background=11151f",
        "--override=colors.foreground=e6e9f0",
    ];
    const PROMPT: &str = r"PS1=\[\e[1;33m\]punktfunk\[\e[0m\] \w \$ ";
    let backdrop = format!("--app-id={NO_FOCUS_APP_ID}");
    let shell = ["--title=Shell", "env", PROMPT, "bash", "--norc", "--noprofile", "-i"];
    let rain = [&*backdrop, "--title=Rain", "sh", "-c", "while :; do cmatrix -b -u 3; done"];
    let words =
        |rest: &[&str]| TERMINAL.iter().chain(rest).map(|word| (*word).to_owned()).collect();
    vec![words(&shell), words(&rain)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn displays(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn spec(title: &str, command: &[&str]) -> AppSpec {
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let commands = if command.is_empty() { vec![] } else { vec![command] };
        AppSpec { title: title.to_owned(), display: "pattern".to_owned(), commands, art: None }
    }

    /// spec: gamestream 13 item 17
    #[test]
    fn an_apps_number_is_stable_positive_and_fits_31_bits() {
        assert_eq!(app_id("Desktop"), app_id("Desktop"));
        assert_ne!(app_id("Desktop"), app_id("Test card"));
        // A changed number would orphan the shortcuts on every client: these two never change.
        assert_eq!(app_id(DESKTOP), AppId(1_679_907_923));
        assert_eq!(app_id(TEST_CARD), AppId(883_719_801));
        for title in ["", "a", "Ünïcode", "Steam"] {
            assert!((1..0x8000_0000).contains(&app_id(title).0));
        }
    }

    #[test]
    fn an_app_that_cannot_run_here_is_left_out_with_its_reason() {
        let mut on_sway = spec("On sway", &[]);
        on_sway.display = "sway".to_owned();
        let specs = vec![
            spec("Good", &["sh", "-c", "true"]),
            spec("Good", &[]),
            on_sway,
            spec(" ", &[]),
            spec("Missing", &["no-such-program-anywhere"]),
        ];
        let Offer { apps, left_out, instead } = offer(specs, &displays(&["pattern"]));
        assert!(!instead);
        assert_eq!(apps.iter().map(|app| app.title.as_str()).collect::<Vec<_>>(), ["Good"]);
        let reasons: Vec<&str> = left_out.iter().map(|app| app.reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "another app has the same title",
                "its display backend \"sway\" does not work here",
                "an app needs a title",
                "the program \"no-such-program-anywhere\" is not installed",
            ]
        );
    }

    #[test]
    fn a_list_is_never_empty() {
        for specs in [vec![], vec![spec("Missing", &["no-such-program-anywhere"])]] {
            let wanted = specs.len();
            let offered = offer(specs, &displays(&["pattern"]));
            assert_eq!((offered.apps, offered.instead), (vec![test_card()], true));
            assert_eq!(offered.left_out.len(), wanted);
        }
    }
}
