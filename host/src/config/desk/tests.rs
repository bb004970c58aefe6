use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::super::{AppDisplay, with_stored};
use super::*;

struct Desk {
    folder: tempfile::TempDir,
    store: Store,
    layers: Layers,
    applied: Arc<Mutex<Vec<Config>>>,
}

impl Desk {
    /// A desk under which the owner's file says this.
    fn new(owners: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("host.toml");
        fs::write(&file, owners).unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        let layers =
            Layers { files: vec![file], machine_name: Some("box".to_owned()), ..Layers::default() };
        Self { folder, store, layers, applied: Arc::default() }
    }

    fn open(&self) -> ConfigDesk {
        let loaded = with_stored(&self.layers, &self.store);
        assert_eq!(loaded.problems, []);
        let applied = Arc::clone(&self.applied);
        ConfigDesk::new(self.layers.clone(), self.store.clone(), loaded, move |held| {
            applied.lock().unwrap().push(held.config.clone());
            vec![]
        })
    }

    fn applied(&self) -> Config {
        self.applied.lock().unwrap().last().unwrap().clone()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("host.toml")
    }
}

fn changes(
    pairs: impl IntoIterator<Item = (&'static str, SettingValue)>,
) -> BTreeMap<String, SettingValue> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn view(views: &[SettingView], key: &str) -> SettingView {
    views.iter().find(|view| view.key == key).unwrap().clone()
}

fn text(text: &str) -> SettingValue {
    SettingValue::Text(text.to_owned())
}

const fn number(number: i64) -> SettingValue {
    SettingValue::Integer(number)
}

fn app(title: &str, program: &str) -> AppConfig {
    AppConfig::new(Some(title), AppDisplay::Sway, vec![vec![program.to_owned()]], None).unwrap()
}

#[test]
fn what_can_hold_at_once_does_and_the_rest_waits_for_the_next_start() {
    let host = Desk::new("");
    let desk = host.open();
    let views =
        desk.change(&changes([("limits.sessions", number(2)), ("name", text("sofa"))])).unwrap();
    let sessions = view(&views, "limits.sessions");
    assert_eq!((sessions.value, sessions.pending), (Some(number(2)), None));
    assert_eq!((sessions.origin, sessions.default), (Some(Origin::Console), Some(number(4))));
    let name = view(&views, "name");
    assert_eq!((name.value, name.origin), (Some(text("box")), None));
    assert_eq!((name.pending, name.default), (Some(text("sofa")), Some(text("box"))));
    assert_eq!(host.applied().limits.sessions, 2);
    assert_eq!(host.applied().name, "box");

    let views = host.open().settings().unwrap();
    let name = view(&views, "name");
    assert_eq!((name.value, name.pending), (Some(text("sofa")), None));
    assert_eq!(name.origin, Some(Origin::Console));
}

#[test]
fn what_is_set_while_the_host_is_put_together_holds_when_it_is() {
    let host = Desk::new("[[app]]\ntitle = 'File'\ncommand = ['file']\n");
    let loaded = with_stored(&host.layers, &host.store);
    let desk = ConfigDesk::before(host.layers.clone(), Ok(host.store.clone()), loaded);
    let set = [("limits.sessions", number(2)), ("name", text("sofa"))];
    let views = desk.change(&changes(set)).unwrap();
    let sessions = view(&views, "limits.sessions");
    assert_eq!((sessions.value, sessions.pending), (Some(number(4)), Some(number(2))));
    assert_eq!(sessions.takes_effect, TakesEffect::Restart);
    desk.put_app(&app("Mine", "one")).unwrap();

    let applied = Arc::clone(&host.applied);
    desk.attach(move |held| {
        applied.lock().unwrap().push(held.config.clone());
        vec![]
    });
    let config = host.applied();
    assert_eq!((config.limits.sessions, config.name.as_str()), (2, "box"));
    assert_eq!(config.apps.len(), 2);
    let views = desk.settings().unwrap();
    assert_eq!(view(&views, "limits.sessions").takes_effect, TakesEffect::Now);
    assert_eq!(view(&views, "limits.sessions").pending, None);
    assert_eq!(view(&views, "name").pending, Some(text("sofa")));
}

#[test]
fn a_name_hides_and_reorders_nothing() {
    let host = Desk::new("");
    let desk = host.open();
    for bad in ["", " ", "a\u{202e}b", "a\nb", "\u{200b}", "a\u{ffff}", &"x".repeat(64)] {
        let refused = desk.change(&changes([("name", text(bad))]));
        assert!(matches!(refused, Err(ConfigError::OutOfRange { .. })), "{bad:?}");
    }
    desk.change(&changes([("name", text("Wohnzimmer <ü> & \"Sofa\""))])).unwrap();
}

#[test]
fn what_was_passed_over_is_told_as_it_was_last_found() {
    let host = Desk::new("");
    let desk = host.open();
    fs::write(host.file(), "nmae = 1\nthis is no TOML [").unwrap();
    desk.reset_all().unwrap();
    let problems = desk.held().problems;
    assert!(problems[0].to_string().contains("host.toml:2"), "{problems:?}");
    let many: String = (0..5_000).map(|index| format!("unknown{index} = 1\n")).collect();
    fs::write(host.file(), many).unwrap();
    desk.reset_all().unwrap();
    let problems = desk.held().problems;
    assert_eq!(problems.len(), 101);
    assert!(problems[100].text.contains("more problems"), "{}", problems[100]);
}

#[test]
fn a_change_is_made_whole_or_not_at_all() {
    let host = Desk::new("limits.sessions = 3\n");
    let desk = host.open();
    let good = ("gamestream.fec_percent", number(30));
    let refused = |bad| desk.change(&changes([good.clone(), bad])).unwrap_err();
    let error = refused(("limits.bitrate_kbps", number(1)));
    assert!(matches!(error, ConfigError::OutOfRange { key: "limits.bitrate_kbps", .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "`limits.bitrate_kbps` is 1; it is to be a whole number in 500..=1000000"
    );
    assert!(matches!(refused(("discovery", text("true"))), ConfigError::OutOfRange { .. }));
    assert!(matches!(refused(("nmae", text("x"))), ConfigError::UnknownSetting { .. }));
    assert!(matches!(refused(("log.filter", text("info"))), ConfigError::NotSettable { .. }));
    let error = refused(("limits.sessions", number(2)));
    let at = format!("{}:1", host.file().display());
    assert!(error.to_string().contains(&at), "{error} does not name {at}");
    assert_eq!(host.store.settings().unwrap(), []);
    assert_eq!(view(&desk.settings().unwrap(), "gamestream.fec_percent").value, Some(number(20)));
}

#[test]
fn what_a_file_fixes_later_is_shown_as_fixed_and_wins_at_the_next_start() {
    let host = Desk::new("");
    let desk = host.open();
    desk.change(&changes([("limits.sessions", number(2))])).unwrap();
    fs::write(host.file(), "limits.sessions = 5\n").unwrap();
    let sessions = view(&desk.settings().unwrap(), "limits.sessions");
    assert_eq!((sessions.value, sessions.pending), (Some(number(2)), Some(number(5))));
    assert!(sessions.fixed.is_some());
    assert!(matches!(
        desk.change(&changes([("limits.sessions", number(1))])),
        Err(ConfigError::Fixed { .. })
    ));
    // Another setting's change does not bring in what a file says of this one.
    desk.change(&changes([("apps.desktop", SettingValue::Boolean(false))])).unwrap();
    assert_eq!(host.applied().limits.sessions, 2);
    assert!(!host.applied().built_in.desktop);
}

#[test]
fn one_setting_is_reset_or_all_of_them() {
    let host = Desk::new("");
    let desk = host.open();
    let set = || {
        let fec = ("gamestream.fec_percent", number(30));
        desk.change(&changes([("limits.sessions", number(2)), fec])).unwrap();
    };
    set();
    let views = desk.reset("limits.sessions").unwrap();
    let sessions = view(&views, "limits.sessions");
    assert_eq!((sessions.value, sessions.origin), (Some(number(4)), None));
    assert_eq!(view(&views, "gamestream.fec_percent").value, Some(number(30)));
    assert!(matches!(desk.reset("nmae"), Err(ConfigError::UnknownSetting { .. })));
    set();
    desk.reset_all().unwrap();
    assert_eq!(host.store.settings().unwrap(), []);
    let applied = host.applied();
    assert_eq!((applied.limits.sessions, applied.gamestream.fec_percent), (4, 20));
}

#[test]
fn apps_come_and_go_without_a_restart() {
    let host = Desk::new("[[app]]\ntitle = 'File'\ncommand = ['file']\n");
    let desk = host.open();
    let titles =
        || -> Vec<String> { host.applied().apps.into_iter().map(|app| app.title).collect() };
    desk.put_app(&app("Mine", "one")).unwrap();
    assert!(host.applied().apps.contains(&app("Mine", "one")));
    desk.put_art("Mine", b"picture").unwrap();
    desk.put_app(&app("Mine", "two")).unwrap();
    let mine = host.applied().apps.into_iter().find(|app| app.title == "Mine").unwrap();
    assert_eq!(
        (mine.commands, mine.art),
        (vec![vec!["two".into()]], Some(super::super::AppArt::Stored))
    );
    assert_eq!(desk.stored_art("Mine").unwrap().unwrap(), b"picture");

    assert!(matches!(desk.put_app(&app("File", "x")), Err(ConfigError::Fixed { .. })));
    assert!(matches!(desk.put_art("File", b"x"), Err(ConfigError::Fixed { .. })));
    assert!(matches!(desk.remove_app("File"), Err(ConfigError::Fixed { .. })));
    assert!(matches!(desk.remove_app("Nobody's"), Err(ConfigError::UnknownApp { .. })));
    assert!(matches!(desk.put_art("Nobody's", b"x"), Err(ConfigError::UnknownApp { .. })));
    assert_eq!(titles(), ["Mine", "File"]);
    desk.remove_app("Mine").unwrap();
    assert_eq!(titles(), ["File"]);
    assert_eq!(host.open().held().config.apps.len(), 1);
}

#[test]
fn there_are_only_so_many_apps_and_pictures() {
    let host = Desk::new("");
    let desk = host.open();
    let definition = app("x", "x").definition();
    for index in 0..MAX_APPS {
        host.store.put_app(&format!("App {index}"), &definition).unwrap();
    }
    assert!(matches!(desk.put_app(&app("More", "x")), Err(ConfigError::TooManyApps)));
    desk.put_app(&app("App 7", "y")).unwrap();
    let picture = vec![0; crate::store::MAX_ART_TOTAL_BYTES / 2];
    desk.put_art("App 1", &picture).unwrap();
    desk.put_art("App 2", &picture).unwrap();
    desk.put_art("App 2", &picture).unwrap();
    let full = desk.put_art("App 3", b"x");
    assert!(matches!(full, Err(ConfigError::Store(StoreError::TooMuchArt { .. }))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is asked for: what was taken is a value that the next start takes too.
    #[test]
    fn what_the_desk_takes_the_next_start_takes(
        index in 0..SETTINGS.len(),
        value in prop_oneof![
            any::<bool>().prop_map(SettingValue::Boolean),
            any::<i64>().prop_map(SettingValue::Integer),
            (0..70_000_i64).prop_map(SettingValue::Integer),
            any::<String>().prop_map(SettingValue::Text),
            Just(SettingValue::Text("require".to_owned())),
            Just(SettingValue::Text("::1".to_owned())),
        ],
    ) {
        let host = Desk::new("");
        let desk = host.open();
        let key = SETTINGS[index].key;
        if desk.change(&changes([(key, value)])).is_ok() {
            let before = view(&desk.settings().unwrap(), key);
            let after = view(&host.open().settings().unwrap(), key);
            prop_assert_eq!(before.pending.or(before.value), after.value);
            prop_assert_eq!(after.pending, None);
        }
    }
}
