//! Words and rules of the market, shared by every service: ids, money, resources, regions, features, epochs, offers,
//! deals and the events that change them. Nothing here reads a socket, a file or a database.
//!
//! Layout: [`ids`], [`money`], [`resources`], [`region`], [`feature`], [`epoch`] are the units;
//! [`offer`], [`deal`], [`market`], [`event`], [`parties`] and [`state`] are the domain; [`clock`], [`telemetry`],
//! [`shutdown`] and [`http`] are what every service is run with.

pub mod agreement;
pub mod clock;
pub mod deal;
pub mod epoch;
pub mod event;
pub mod feature;
pub mod http;
pub mod ids;
pub mod market;
pub mod money;
pub mod offer;
pub mod parties;
pub mod region;
pub mod resources;
mod schema;
pub mod shutdown;
pub mod state;
pub mod telemetry;
