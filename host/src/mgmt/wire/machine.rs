//! Disks and network on the wire.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::machine::network::{self as net, Condition, Kind};
use crate::machine::storage::{Purpose, Room, Usage};

/// The disks that the product writes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Storage {
    /// The folders.
    pub folders: Vec<StorageFolder>,
}

/// A folder of the product's, and its disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StorageFolder {
    /// What it is for.
    pub purpose: StoragePurpose,
    /// Where it is.
    pub path: String,
    /// The size of its disk, in bytes.
    pub total_bytes: u64,
    /// What is left, in bytes.
    pub free_bytes: u64,
    /// What lies in the folder, in bytes; not told of homes, which belong to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub own_bytes: Option<u64>,
    /// There is more in it than could be counted.
    pub own_is_at_least: bool,
    /// How much room that is.
    pub room: StorageRoom,
    /// What the owner is to know and do, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub warning: Option<String>,
}

/// What a folder is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StoragePurpose {
    /// Identity, pairings, settings.
    State,
    /// Games and saves of those who play.
    Homes,
}

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StorageRoom {
    /// Enough.
    Enough,
    /// Little.
    Low,
    /// None to speak of.
    Full,
}

/// The network as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Network {
    /// What can be plugged in or switched on.
    pub interfaces: Vec<NetworkInterface>,
    /// The ways out.
    pub routes: Vec<NetworkRoute>,
    /// The name under which this host is found without a name server, with `.local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub local_name: Option<String>,
    /// A network that was prepared and that this host has not joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub prepared: Option<WaitingNetwork>,
    /// What keeps clients from reaching this host, and what to do, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub problem: Option<String>,
}

/// A network that was prepared before the first start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitingNetwork {
    /// Its name.
    pub ssid: String,
    /// What it waits for.
    pub sentence: String,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkInterface {
    /// Its name.
    pub name: String,
    /// What carries it.
    pub kind: NetworkKind,
    /// How it stands with it.
    pub condition: NetworkCondition,
    /// The same, for the owner.
    pub sentence: String,
    /// How fast the cable is, in Mbit/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub speed_mbps: Option<u32>,
    /// Its addresses.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
}

/// What carries an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkKind {
    /// A cable.
    Wired,
    /// A radio.
    WiFi,
}

/// How it stands with an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkCondition {
    /// It has an address that others reach.
    Connected,
    /// There is a cable or a network, and no address yet.
    WaitingForAddress,
    /// Nothing is plugged in.
    NoCable,
    /// The radio knows no network.
    NoNetwork,
    /// It is switched off.
    Off,
}

/// A way out of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkRoute {
    /// Over which interface.
    pub interface: String,
    /// Through which neighbour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, nullable = false)]
    pub gateway: Option<IpAddr>,
}

impl From<Usage> for StorageFolder {
    fn from(usage: Usage) -> Self {
        Self {
            warning: usage.warning(),
            purpose: match usage.folder.purpose {
                Purpose::State => StoragePurpose::State,
                Purpose::Homes => StoragePurpose::Homes,
            },
            path: usage.folder.path.display().to_string(),
            total_bytes: usage.total_bytes,
            free_bytes: usage.free_bytes,
            own_bytes: usage.own.map(|own| own.bytes),
            own_is_at_least: usage.own.is_some_and(|own| own.at_least),
            room: match usage.room {
                Room::Enough => StorageRoom::Enough,
                Room::Low => StorageRoom::Low,
                Room::Full => StorageRoom::Full,
            },
        }
    }
}

impl Network {
    /// What was read, the name that the host gave itself, and the name of the network that was prepared.
    pub fn of(network: net::Network, local_name: Option<String>, prepared: Option<String>) -> Self {
        let problem = network.problem();
        let route =
            |route: net::Route| NetworkRoute { interface: route.interface, gateway: route.gateway };
        Self {
            interfaces: network.interfaces.into_iter().map(NetworkInterface::from).collect(),
            routes: network.routes.into_iter().map(route).collect(),
            local_name,
            prepared: prepared.map(|ssid| WaitingNetwork {
                ssid,
                sentence: "It is kept, and waits until this host can join networks.".to_owned(),
            }),
            problem,
        }
    }
}

impl From<net::Interface> for NetworkInterface {
    fn from(interface: net::Interface) -> Self {
        Self {
            sentence: interface.sentence().to_owned(),
            kind: match interface.kind {
                Kind::Wired => NetworkKind::Wired,
                Kind::WiFi => NetworkKind::WiFi,
            },
            condition: match interface.condition {
                Condition::Connected => NetworkCondition::Connected,
                Condition::WaitingForAddress => NetworkCondition::WaitingForAddress,
                Condition::NoCable => NetworkCondition::NoCable,
                Condition::NoNetwork => NetworkCondition::NoNetwork,
                Condition::Off => NetworkCondition::Off,
            },
            name: interface.name,
            speed_mbps: interface.speed_mbps,
            addresses: interface.addresses,
        }
    }
}
