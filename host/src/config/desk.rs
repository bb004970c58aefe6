//! The console's layer: what the owner sets there, checked, kept, and put to use as far as it can be at once.
//!
//! A change is checked against the same table that files are read with, kept in the store, and then the configuration is
//! loaded anew, files included. What can hold at once is handed on; everything else waits for the next start, and
//! the desk says so: the value that holds and the one that will are two values. What stands in a layer above the
//! console's is fixed: the change is refused, because it would do nothing.
//!
//! The desk is there before the host is, and also if the host cannot be put together: that is when a setting must be
//! mended. Then all of a change waits for the next start.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::settings::{self, Kind, SETTINGS, Setting, TakesEffect};
use super::value::{SettingValue, Value};
use super::{AppConfig, Config, Layers, Loaded, MAX_APPS, Origin, Problem, Stored, load};
use crate::store::{Store, StoreError};

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No setting has this key.
    #[error("`{}` is not a setting of this version", super::printable(key))]
    UnknownSetting {
        /// What was asked for.
        key: String,
    },
    /// It is not the console's to set.
    #[error("`{key}` cannot be set in the console; set it in /etc/punktfunk/host.toml")]
    NotSettable {
        /// The setting.
        key: &'static str,
    },
    /// A layer above the console's says otherwise.
    #[error("{what} is fixed by {origin}; change it there, or remove it there to set it here")]
    Fixed {
        /// The setting or the app.
        what: String,
        /// Where it stands.
        origin: Origin,
    },
    /// The value is not one that the setting takes.
    #[error("`{key}` is {got}; it is to be {range}")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// What was given.
        got: String,
        /// What it takes.
        range: String,
    },
    /// The app cannot be one; the text says why.
    #[error("{0}")]
    UnfitApp(String),
    /// There are as many apps as there may be.
    #[error("there are {MAX_APPS} apps, which is the limit; remove one first")]
    TooManyApps,
    /// The console added no such app.
    #[error("no app \"{}\" was added in the console", super::printable(title))]
    UnknownApp {
        /// Its title.
        title: String,
    },
    /// There is no store to keep it in.
    #[error("nothing can be set in the console, because it could not be kept: {0}")]
    NoStore(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An app that is not offered, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotOffered {
    /// Its title.
    pub title: String,
    /// Why, in a sentence.
    pub reason: String,
}

/// What a setting takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingKind {
    /// A text.
    Text {
        /// Which, in words.
        range: &'static str,
    },
    /// A whole number.
    Integer {
        /// The least.
        minimum: i64,
        /// The most.
        maximum: i64,
    },
    /// True or false.
    Boolean,
    /// One of these.
    Choice {
        /// Them all.
        options: &'static [&'static str],
    },
}

/// A setting as the console shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingView {
    /// Its key.
    pub key: &'static str,
    /// The part of the configuration it belongs to.
    pub group: &'static str,
    /// What it is for, in sentences.
    pub about: &'static str,
    /// What it takes.
    pub kind: SettingKind,
    /// What its number counts.
    pub unit: Option<&'static str>,
    /// What holds if nobody says anything; `None` if there is no such value.
    pub default: Option<SettingValue>,
    /// What holds now.
    pub value: Option<SettingValue>,
    /// Where that was said; `None` for the default.
    pub origin: Option<Origin>,
    /// Where it stands above the console's layer, if it does: the console cannot change it.
    pub fixed: Option<Origin>,
    /// Whether the console may set it at all.
    pub settable: bool,
    /// When a change holds.
    pub takes_effect: TakesEffect,
    /// What will hold when the host starts again, if that is another value.
    pub pending: Option<SettingValue>,
}

/// What holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The configuration.
    pub config: Config,
    /// Where each setting that is not at its default was set.
    pub origins: BTreeMap<&'static str, Origin>,
    /// Where each app of [`Config::apps`] was said.
    pub app_origins: BTreeMap<String, Origin>,
    /// The apps that are not offered, built-in ones too.
    pub not_offered: Vec<NotOffered>,
    /// What was passed over when the layers were read last.
    pub problems: Vec<Problem>,
}

/// Puts what holds to use, as far as that can be done at once; says which apps cannot be offered.
type Apply = Box<dyn Fn(&Held) -> Vec<NotOffered> + Send + Sync>;

/// Where the console changes settings and apps; clones share it. All calls may wait for the disk.
#[derive(Clone)]
pub struct ConfigDesk {
    inner: Arc<Inner>,
}

struct Inner {
    layers: Layers,
    /// Where the console's layer is kept; or why nowhere.
    store: Result<Store, String>,
    inside: Mutex<Inside>,
}

struct Inside {
    held: Held,
    /// There is none while the host is put together, and none at all if it could not be.
    apply: Option<Apply>,
    /// Something was changed before there was one.
    is_behind: bool,
}

impl fmt::Debug for ConfigDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigDesk").finish_non_exhaustive()
    }
}

impl ConfigDesk {
    /// A desk for a host that runs with what was `loaded` from these layers and this store. `apply` is called at once,
    /// and with each change; it puts to use what can hold without a restart, and says which apps cannot be offered.
    pub fn new(
        layers: Layers,
        store: Store,
        loaded: Loaded,
        apply: impl Fn(&Held) -> Vec<NotOffered> + Send + Sync + 'static,
    ) -> Self {
        let desk = Self::before(layers, Ok(store), loaded);
        desk.attach(apply);
        desk
    }

    /// A desk for a host that is not put together yet, and may never be: what is changed here is kept, and holds when
    /// the host is ([`Self::attach`]) or starts again. Without a store all can be read and nothing changed.
    pub fn before(layers: Layers, store: Result<Store, String>, loaded: Loaded) -> Self {
        let Loaded { config, origins, app_origins, problems } = loaded;
        let held = Held { config, origins, app_origins, not_offered: vec![], problems };
        let inside = Mutex::new(Inside { held, apply: None, is_behind: false });
        Self { inner: Arc::new(Inner { layers, store, inside }) }
    }

    /// The host is put together. `apply` is called at once, and with each change, as for [`Self::new`].
    pub fn attach(&self, apply: impl Fn(&Held) -> Vec<NotOffered> + Send + Sync + 'static) {
        let mut inside = self.lock();
        if std::mem::take(&mut inside.is_behind) {
            match self.load() {
                Ok(next) => {
                    let all: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
                    inside.held.take_settings(&next, &all);
                    inside.held.take_apps(&next);
                }
                Err(error) => tracing::warn!(%error, "what was set meanwhile cannot be read"),
            }
        }
        inside.held.not_offered = apply(&inside.held);
        inside.apply = Some(Box::new(apply));
    }

    /// What holds now.
    pub fn held(&self) -> Held {
        self.lock().held.clone()
    }

    /// All settings, in the order of the reference.
    ///
    /// # Errors
    /// The store failed.
    pub fn settings(&self) -> Result<Vec<SettingView>, ConfigError> {
        let inside = self.lock();
        Ok(self.views(&inside, &self.load()?))
    }

    /// Sets all of these, or none; gives all settings as they are then.
    ///
    /// # Errors
    /// See [`ConfigError`]; nothing has changed.
    pub fn change(
        &self,
        changes: &BTreeMap<String, SettingValue>,
    ) -> Result<Vec<SettingView>, ConfigError> {
        let mut inside = self.lock();
        let before = self.load()?;
        let mut keys = Vec::new();
        let mut rows = Vec::new();
        for (key, value) in changes {
            let setting = checked(key, value, &before)?;
            let text = serde_json::to_string(value).map_err(|error| ConfigError::OutOfRange {
                key: setting.key,
                got: error.to_string(),
                range: setting.range(),
            })?;
            keys.push(setting.key);
            rows.push((key.clone(), text));
        }
        self.store()?.put_settings(&rows)?;
        tracing::info!(keys = keys.join(", "), "settings were changed in the console");
        self.put_to_use(&mut inside, &keys)
    }

    /// Forgets what the console set for this key.
    ///
    /// # Errors
    /// There is no such setting, or the store failed; nothing has changed.
    pub fn reset(&self, key: &str) -> Result<Vec<SettingView>, ConfigError> {
        let setting = settings::find(key)
            .ok_or_else(|| ConfigError::UnknownSetting { key: key.to_owned() })?;
        let mut inside = self.lock();
        self.store()?.remove_setting(setting.key)?;
        tracing::info!(key = setting.key, "a setting was reset in the console");
        self.put_to_use(&mut inside, &[setting.key])
    }

    /// Forgets all that the console set; apps stay.
    ///
    /// # Errors
    /// The store failed; nothing has changed.
    pub fn reset_all(&self) -> Result<Vec<SettingView>, ConfigError> {
        let mut inside = self.lock();
        let before = self.load()?;
        let of_console =
            |setting: &&Setting| before.origins.get(setting.key) == Some(&Origin::Console);
        let keys: Vec<_> = SETTINGS.iter().filter(of_console).map(|setting| setting.key).collect();
        self.store()?.remove_settings()?;
        tracing::info!("all settings were reset in the console");
        self.put_to_use(&mut inside, &keys)
    }

    /// Adds an app, or replaces the one of its title, which keeps its picture. It is offered at once.
    ///
    /// # Errors
    /// A file says what is under this title, there are too many, or the store failed; nothing has changed.
    pub fn put_app(&self, app: &AppConfig) -> Result<(), ConfigError> {
        let mut inside = self.lock();
        let before = self.load()?;
        is_free(&app.title, &before)?;
        let apps = &before.config.apps;
        if apps.len() >= MAX_APPS && !apps.iter().any(|known| known.title == app.title) {
            return Err(ConfigError::TooManyApps);
        }
        self.store()?.put_app(&app.title, &app.definition())?;
        tracing::info!(title = app.title, "an app was set in the console");
        self.take_apps(&mut inside)
    }

    /// Removes an app that the console added. Whoever plays it plays on.
    ///
    /// # Errors
    /// The console added none, or the store failed; nothing has changed.
    pub fn remove_app(&self, title: &str) -> Result<(), ConfigError> {
        let mut inside = self.lock();
        if !self.store()?.remove_app(title)? {
            return Err(match self.load()?.app_origins.get(title) {
                Some(origin) => {
                    ConfigError::Fixed { what: app_words(title), origin: origin.clone() }
                }
                None => ConfigError::UnknownApp { title: title.to_owned() },
            });
        }
        tracing::info!(title, "an app was removed in the console");
        self.take_apps(&mut inside)
    }

    /// Gives an app of the console's a picture, which the caller has checked.
    ///
    /// # Errors
    /// The console added no such app, a file says what is under its title, or the store failed; nothing has changed.
    pub fn put_art(&self, title: &str, art: &[u8]) -> Result<(), ConfigError> {
        let mut inside = self.lock();
        is_free(title, &self.load()?)?;
        if !self.store()?.put_app_art(title, art)? {
            return Err(ConfigError::UnknownApp { title: title.to_owned() });
        }
        self.take_apps(&mut inside)
    }

    /// The picture of an app that has [`AppArt::Stored`](super::AppArt::Stored).
    ///
    /// # Errors
    /// The store failed.
    pub fn stored_art(&self, title: &str) -> Result<Option<Vec<u8>>, ConfigError> {
        Ok(self.store()?.app_art(title)?)
    }

    fn load(&self) -> Result<Loaded, ConfigError> {
        let Ok(store) = &self.inner.store else { return Ok(load(&self.inner.layers)) };
        let stored = Stored::read(store)?;
        Ok(load(&Layers { stored, ..self.inner.layers.clone() }))
    }

    fn store(&self) -> Result<&Store, ConfigError> {
        self.inner.store.as_ref().map_err(|why| ConfigError::NoStore(why.clone()))
    }

    /// What is behind the lock is replaced field by field with values that are whole; a panic leaves it usable.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inner.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_to_use(
        &self,
        inside: &mut Inside,
        keys: &[&str],
    ) -> Result<Vec<SettingView>, ConfigError> {
        let next = self.load()?;
        if inside.apply.is_some() {
            inside.held.take_settings(&next, keys);
        }
        inside.hand_on();
        Ok(self.views(inside, &next))
    }

    fn take_apps(&self, inside: &mut Inside) -> Result<(), ConfigError> {
        inside.held.take_apps(&self.load()?);
        inside.hand_on();
        Ok(())
    }

    fn views(&self, inside: &Inside, next: &Loaded) -> Vec<SettingView> {
        let held = &inside.held;
        let machine_name = self.inner.layers.machine_name.clone();
        let defaults = load(&Layers { machine_name, ..Layers::default() }).config;
        let view = |setting: &Setting| {
            let get = setting.get;
            let pending = get(&next.config);
            SettingView {
                key: setting.key,
                group: setting.group(),
                about: setting.about,
                kind: kind(&setting.kind),
                unit: setting.unit,
                default: get(&defaults),
                value: get(&held.config),
                origin: held.origins.get(setting.key).cloned(),
                fixed: next.origins.get(setting.key).filter(|origin| origin.is_fixed()).cloned(),
                settable: setting.settable,
                // There is nobody who could put it to use at once.
                takes_effect: match inside.apply {
                    Some(_) => setting.takes_effect,
                    None => TakesEffect::Restart,
                },
                pending: pending.filter(|pending| get(&held.config).as_ref() != Some(pending)),
            }
        };
        SETTINGS.iter().map(view).collect()
    }
}

impl Inside {
    fn hand_on(&mut self) {
        match &self.apply {
            Some(apply) => self.held.not_offered = apply(&self.held),
            None => self.is_behind = true,
        }
    }
}

impl Held {
    /// Takes over those of the settings with these keys that can hold at once.
    fn take_settings(&mut self, next: &Loaded, keys: &[&str]) {
        let at_once = |setting: &&Setting| {
            keys.contains(&setting.key) && setting.takes_effect != TakesEffect::Restart
        };
        for setting in SETTINGS.iter().filter(at_once) {
            if let Some(value) = (setting.get)(&next.config) {
                setting.put(&mut self.config, value.into());
            }
            match next.origins.get(setting.key) {
                Some(origin) => self.origins.insert(setting.key, origin.clone()),
                None => self.origins.remove(setting.key),
            };
        }
        self.problems.clone_from(&next.problems);
    }

    fn take_apps(&mut self, next: &Loaded) {
        self.config.apps.clone_from(&next.config.apps);
        self.app_origins.clone_from(&next.app_origins);
        self.problems.clone_from(&next.problems);
    }
}

fn kind(kind: &Kind) -> SettingKind {
    match kind {
        Kind::Text { range, .. } => SettingKind::Text { range },
        Kind::Integer { range, .. } => {
            SettingKind::Integer { minimum: *range.start(), maximum: *range.end() }
        }
        Kind::Boolean { .. } => SettingKind::Boolean,
        Kind::Choice { options, .. } => SettingKind::Choice { options },
    }
}

/// The setting, if the console may give it this value.
fn checked(key: &str, value: &SettingValue, now: &Loaded) -> Result<&'static Setting, ConfigError> {
    let setting =
        settings::find(key).ok_or_else(|| ConfigError::UnknownSetting { key: key.to_owned() })?;
    if !setting.settable {
        return Err(ConfigError::NotSettable { key: setting.key });
    }
    if let Some(origin) = now.origins.get(setting.key).filter(|origin| origin.is_fixed()) {
        return Err(ConfigError::Fixed { what: format!("`{key}`"), origin: origin.clone() });
    }
    let value = Value::from(value.clone());
    let got = value.to_string();
    if setting.put(&mut Config::default(), value) {
        return Ok(setting);
    }
    Err(ConfigError::OutOfRange { key: setting.key, got, range: setting.range() })
}

fn is_free(title: &str, now: &Loaded) -> Result<(), ConfigError> {
    match now.app_origins.get(title).filter(|origin| origin.is_fixed()) {
        Some(origin) => Err(ConfigError::Fixed { what: app_words(title), origin: origin.clone() }),
        None => Ok(()),
    }
}

fn app_words(title: &str) -> String {
    format!("the app \"{}\"", super::printable(title))
}

#[cfg(test)]
mod tests;
