use std::fs;

use proptest::prelude::*;

use super::*;

/// Loads one owner's file with this text.
fn load_text(text: &str) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host.toml");
    fs::write(&file, text).unwrap();
    load(&Layers { files: vec![file], ..Layers::default() })
}

fn texts(loaded: &Loaded) -> Vec<String> {
    loaded
        .problems
        .iter()
        .map(|problem| {
            let text = problem.to_string();
            text.split_once("host.toml").map_or(text.clone(), |(_, rest)| rest.to_owned())
        })
        .collect()
}

#[test]
fn nothing_said_is_the_default() {
    let loaded = load(&Layers {
        files: vec!["/nonexistent/host.toml".into()],
        drop_ins: Some("/nonexistent".into()),
        machine_name: Some("box\n".to_owned()),
        ..Layers::default()
    });
    assert_eq!(loaded.problems, []);
    assert_eq!(loaded.config, Config { name: "box".to_owned(), ..Config::default() });
}

#[test]
fn later_layers_win() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("host.d")).unwrap();
    let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
    write("image.toml", "name = 'image'\n[limits]\nsessions = 2\nbitrate_kbps = 1000\n");
    write("owner.toml", "name = 'owner'\n[gamestream]\nport = 40000\nfec_percent = 1\n");
    write("host.d/20.toml", "gamestream.fec_percent = 30\n");
    write("host.d/10.toml", "gamestream.fec_percent = 10\ngamestream.encryption = 'require'\n");
    write("host.d/30.txt", "gamestream.fec_percent = 99\n");
    write("named.toml", "log.format = 'json'\n");
    let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let loaded = load(&Layers {
        image: Some(path("image.toml")),
        stored: Stored::default(),
        files: vec![path("owner.toml")],
        drop_ins: Some(path("host.d")),
        named_file: Some(path("named.toml")),
        environment: vec![
            text("PUNKTFUNK_GAMESTREAM__PORT", "41000"),
            text("PUNKTFUNK_LISTEN__ADDRESS", "::1"),
            text("PUNKTFUNK_APPS__DESKTOP", "off"),
            text("PUNKTFUNK_SOCKET", "/tmp/x"),
            text("PATH", "/bin"),
        ],
        flags: vec![text("gamestream.port", "42000")],
        machine_name: None,
    });
    assert_eq!(loaded.problems, []);
    let config = &loaded.config;
    assert_eq!(config.name, "owner");
    assert_eq!((config.limits.sessions, config.limits.bitrate_kbps), (2, 1000));
    assert_eq!((config.gamestream.port, config.gamestream.fec_percent), (42_000, 30));
    assert_eq!(config.gamestream.encryption, Encryption::Require);
    assert_eq!(config.listen.address, std::net::Ipv6Addr::LOCALHOST);
    assert!(config.log.json && config.built_in.test_card && !config.built_in.desktop);
    assert_eq!(
        loaded.origins["limits.sessions"],
        Origin::Image { path: path("image.toml"), line: 3 }
    );
    assert_eq!(loaded.origins["gamestream.port"], Origin::Flag { key: "gamestream.port".into() });
}

#[test]
fn the_console_is_above_the_image_and_below_the_owners_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(
        path("image.toml"),
        "name = 'image'\nlimits.sessions = 2\nlog.format = 'json'\n[[app]]\ntitle = 'A'\ncommand = ['image']\n\
         [[app]]\ntitle = 'B'\ncommand = ['image']\n",
    )
    .unwrap();
    fs::write(
        path("owner.toml"),
        "limits.sessions = 4\n[[app]]\ntitle = 'B'\ncommand = ['owner']\n",
    )
    .unwrap();
    let row = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let app = |title: &str, definition: &str| StoredApp {
        title: title.to_owned(),
        definition: definition.to_owned(),
        has_art: title == "A",
    };
    let console = "{\"display\":\"sway\",\"commands\":[[\"console\"]]}";
    let loaded = load(&Layers {
        image: Some(path("image.toml")),
        stored: Stored {
            settings: vec![
                row("discovery", "false"),
                row("gamestream.fec_percent", "101"),
                row("apps.desktop", "no json"),
                row("future", "1"),
                row("limits.sessions", "3"),
                row("log.format", "\"text\""),
                row("name", "\"console\""),
            ],
            apps: vec![app("A", console), app("B", console), app("C", "{}"), app("D\n", console)],
        },
        files: vec![path("owner.toml")],
        ..Layers::default()
    });
    let config = &loaded.config;
    assert_eq!((config.name.as_str(), config.discovery), ("console", false));
    assert_eq!((config.limits.sessions, config.gamestream.fec_percent), (4, 20));
    assert!(config.log.json, "what is logged is decided before the store is open");
    let texts: Vec<_> = loaded.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "set in the console: `gamestream.fec_percent` is 101; it is to be a whole number in \
             0..=100",
            "set in the console: `apps.desktop` is no json; it is to be true or false",
            "set in the console: `future` is not a setting of this version",
            "set in the console: `log.format` cannot be set in the console and is passed over",
            "set in the console: the app \"C\" is passed over: missing field `display` at line 1 \
             column 2",
        ]
    );
    assert_eq!(loaded.problems[2].severity, Severity::Warning);
    assert_eq!(loaded.origins["name"], Origin::Console);
    assert!(loaded.origins["limits.sessions"].is_fixed());
    let commands: Vec<_> =
        config.apps.iter().map(|app| (app.title.as_str(), app.commands[0][0].as_str())).collect();
    assert_eq!(commands, [("A", "console"), ("B", "owner"), ("D", "console")]);
    assert_eq!(config.apps[0].art, Some(AppArt::Stored));
    assert_eq!(loaded.app_origins["A"], Origin::Console);
    assert!(loaded.app_origins["B"].is_fixed());
}

#[test]
fn a_wrong_value_names_file_line_and_range_and_the_rest_holds() {
    let loaded = load_text(
        "name = 'sofa'\n\n[gamestream]\nport = 80\nfec_percent = 30\nencryption = 'maybe'\n\
         [limits]\nsessions = 'two'\n[log]\nfilter = 'punktfunk=loud'\n[state]\nfolder = 'here'\n",
    );
    assert_eq!(
        texts(&loaded),
        [
            ":4: `gamestream.port` is 80; it is to be a whole number in 1029..=65514",
            ":6: `gamestream.encryption` is \"maybe\"; it is to be one of \"off\", \"offer\", \
             \"require\"",
            ":8: `limits.sessions` is \"two\"; it is to be a whole number in 1..=16",
            ":10: `log.filter` is \"punktfunk=loud\"; it is to be a level, or `target=level` \
             separated by commas",
            ":12: `state.folder` is \"here\"; it is to be an absolute path",
        ]
    );
    assert!(loaded.problems.iter().all(|problem| problem.severity == Severity::Error));
    assert_eq!(loaded.config.name, "sofa");
    assert_eq!(loaded.config.gamestream.port, 47_989);
    assert_eq!(loaded.config.gamestream.fec_percent, 30);
}

#[test]
fn unknown_keys_are_warned_of() {
    let loaded = load_text("nmae = 'x'\n[gamestream]\nprot = 1\n[future]\nkey = 1\n");
    assert_eq!(
        texts(&loaded),
        [
            ":1: `nmae` is not a setting of this version",
            ":3: `gamestream.prot` is not a setting of this version",
            ":4: `future` is not a setting of this version",
        ]
    );
    assert!(loaded.problems.iter().all(|problem| problem.severity == Severity::Warning));
    let environment = vec![("PUNKTFUNK_GAMESTREAM__PROT".to_owned(), "1".to_owned())];
    let loaded = load(&Layers { environment, ..Layers::default() });
    assert_eq!(
        loaded.problems[0].to_string(),
        "$PUNKTFUNK_GAMESTREAM__PROT: `gamestream.prot` is not a setting of this version"
    );
}

#[test]
fn a_file_that_is_no_toml_is_passed_over_and_named() {
    let loaded = load_text("name = 'x'\n[gamestream\nport = 1\n");
    assert_eq!(loaded.config, Config::default());
    assert!(texts(&loaded)[0].starts_with(":2: the file is not TOML"), "{:?}", texts(&loaded));
    let named = load(&Layers { named_file: Some("/nonexistent".into()), ..Layers::default() });
    assert!(named.problems[0].to_string().starts_with("/nonexistent: cannot be read"));
    let big = load_text(&"#".repeat(2 * 1024 * 1024));
    assert!(texts(&big)[0].contains("more than"));
}

#[test]
fn apps_are_read_and_bad_ones_named() {
    let loaded = load_text(
        "[[app]]\ntitle = 'Terminal'\ncommand = ['foot']\n\
         [[app]]\ntitle = 'Two'\ncommands = [['a'], ['b', 'c']]\nart = '/x.png'\ncolour = 1\n\
         [[app]]\ncommand = ['nameless']\n\
         [[app]]\ntitle = 'Idle'\n\
         [[app]]\ntitle = 'Card'\ndisplay = 'pattern'\n\
         [[app]]\ntitle = 'Terminal'\ncommand = ['other']\n\
         [[app]]\ntitle = 'Shell'\ncommand = 'one text'\n",
    );
    let titles: Vec<_> = loaded.config.apps.iter().map(|app| app.title.as_str()).collect();
    assert_eq!(titles, ["Terminal", "Two", "Card"]);
    assert_eq!(loaded.config.apps[0].commands, [["other"]]);
    assert_eq!(loaded.config.apps[1].commands, [vec!["a"], vec!["b", "c"]]);
    assert_eq!(loaded.config.apps[2].display, AppDisplay::Pattern);
    assert_eq!(
        texts(&loaded),
        [
            ":8: `app.colour` is not a setting of this version",
            ":9: an app needs a `title` of 1 to 64 characters",
            ":11: the app \"Idle\" needs a `command`",
            ":19: a command is to be a list of 1 to 256 texts, as in [\"program\", \"argument\"]",
        ]
    );
}

#[test]
fn ports_follow_the_base() {
    for port in [1029, 47_989, 65_514] {
        let config = load_text(&format!("gamestream.port = {port}")).config.gamestream;
        assert_eq!(config.https_port(), port - 5);
        assert_eq!((config.video_port(), config.control_port()), (port + 9, port + 10));
        assert_eq!((config.audio_port(), config.rtsp_port()), (port + 11, port + 21));
    }
}

#[test]
fn every_default_is_a_value_its_setting_takes() {
    let defaults = Config::default();
    for setting in settings::SETTINGS {
        let Some(value) = (setting.get)(&defaults) else { continue };
        let loaded = load_text(&format!("{} = {}\n", setting.key, value.to_toml()));
        assert_eq!(loaded.problems, [], "{}", setting.key);
        assert_eq!(loaded.config, defaults);
    }
}

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/config.md");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, reference()).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == reference(),
        "docs/reference/config.md is old: UPDATE_GENERATED=1 cargo test config::tests::the_reference"
    );
}

#[test]
fn the_example_of_the_reference_is_right() {
    let reference = reference();
    let (_, example) = reference.split_once("```toml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let loaded = load_text(example);
    assert_eq!(loaded.problems, []);
    assert_eq!(loaded.config.apps.len(), 1);
}

proptest! {
    #[test]
    fn nothing_in_a_file_makes_it_panic(text in any::<String>()) {
        load_text(&text);
    }

    #[test]
    fn odd_values_of_known_keys_do_not_panic(
        index in 0..settings::SETTINGS.len(),
        value in prop_oneof![
            any::<i64>().prop_map(|number| number.to_string()),
            any::<String>().prop_map(|text| toml::Value::from(text).to_string()),
            Just("{ a = 1 }".to_owned()),
            Just("[1, 'x', []]".to_owned()),
            Just("0xFFFF_FFFF_FFFF_FFFF_FFFF".to_owned()),
            Just("1979-05-27".to_owned()),
            Just("nan".to_owned()),
        ],
    ) {
        let loaded = load_text(&format!("{} = {value}", settings::SETTINGS[index].key));
        let config = loaded.config.gamestream;
        prop_assert!((1029..=65_514).contains(&config.port) && config.fec_percent <= 100);
    }
}
