//! Places: continent, country and site in eight bytes, so that the contract compares prefixes with one mask.
//!
//! Text: `eu`, `eu-de`, `eu-de-fra1`. Bytes: the parts without the hyphens, padded with zero bytes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

/// Continents: Africa, Asia-Pacific, Europe, Middle East, North America, Oceania, South America.
pub const CONTINENTS: [&str; 7] = ["af", "ap", "eu", "me", "na", "oc", "sa"];

/// Country codes of ISO 3166-1 alpha-2.
const COUNTRIES: &str = "ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bl bm bn bo bq br bs bt bv bw by bz \
ca cc cd cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg eh er es et fi fj fk fm fo fr ga \
gb gd ge gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm jo jp ke \
kg kh ki km kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mf mg mh mk ml mm mn mo mp mq mr ms mt mu \
mv mw mx my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru rw sa \
sb sc sd se sg sh si sj sk sl sm sn so sr ss st sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz ua ug um \
us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw";

/// A place or a prefix of places.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region([u8; 8]);

/// A text or bytes that name no place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegionError {
    /// The first part is no known continent.
    #[error("unknown region {region:?}: the continent must be one of af, ap, eu, me, na, oc, sa")]
    UnknownContinent {
        /// The text, cut to a readable length.
        region: String,
    },
    /// The second part is no country code.
    #[error("unknown region {region:?}: the country must be a two-letter ISO 3166 code, as in eu-de")]
    UnknownCountry {
        /// The text, cut to a readable length.
        region: String,
    },
    /// The third part is too long or has other characters, or there are more parts.
    #[error("unknown region {region:?}: the site must be 1 to 4 of a-z and 0-9, as in eu-de-fra1")]
    InvalidSite {
        /// The text, cut to a readable length.
        region: String,
    },
}

impl Region {
    /// The eight bytes that the contract knows.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0
    }

    /// Reads the contract's form; anything that [`Region::from_str`] would refuse is refused here.
    pub fn from_bytes(bytes: [u8; 8]) -> Result<Self, RegionError> {
        let text: String = bytes.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
        let dashed = text
            .chars()
            .enumerate()
            .flat_map(|(at, c)| (at == 2 || at == 4).then_some('-').into_iter().chain([c]))
            .collect::<String>();
        let region: Self = dashed.parse()?;
        // Bytes behind the first zero would make two places out of one text.
        if region.0 == bytes { Ok(region) } else { Err(RegionError::InvalidSite { region: dashed }) }
    }

    /// What its first bytes name: two its continent, four its country.
    pub fn prefix(self, length: usize) -> Option<Self> {
        let mut bytes = self.0;
        bytes.iter_mut().skip(length).for_each(|byte| *byte = 0);
        Self::from_bytes(bytes).ok()
    }

    /// Whether `place` lies in `self`: every part that `self` names is the same.
    pub fn contains(self, place: Self) -> bool {
        self.0.iter().zip(place.0).all(|(wanted, have)| *wanted == 0 || *wanted == have)
    }

    /// Whether at least continent and country are named, as a provider must.
    pub fn names_country(self) -> bool {
        self.part(2..4).iter().all(|byte| *byte != 0)
    }

    fn part(&self, range: std::ops::Range<usize>) -> &[u8] {
        self.0.get(range).unwrap_or_default()
    }
}

impl FromStr for Region {
    type Err = RegionError;

    fn from_str(text: &str) -> Result<Self, RegionError> {
        let region = || text.chars().take(40).collect::<String>();
        let mut parts = text.split('-');
        let continent = parts.next().unwrap_or_default();
        if !CONTINENTS.contains(&continent) {
            return Err(RegionError::UnknownContinent { region: region() });
        }
        let country = parts.next();
        if country.is_some_and(|code| code.len() != 2 || !COUNTRIES.split(' ').any(|known| known == code)) {
            return Err(RegionError::UnknownCountry { region: region() });
        }
        let site = parts.next();
        let site_is_valid = |site: &str| {
            (1..=4).contains(&site.len()) && site.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if site.is_some_and(|site| !site_is_valid(site)) || parts.next().is_some() {
            return Err(RegionError::InvalidSite { region: region() });
        }
        let mut bytes = [0; 8];
        let letters = [continent, country.unwrap_or_default(), site.unwrap_or_default()].concat();
        for (to, from) in bytes.iter_mut().zip(letters.bytes()) {
            *to = from;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate().take_while(|(_, byte)| **byte != 0) {
            let dash = if at == 2 || at == 4 { "-" } else { "" };
            write!(f, "{dash}{}", char::from(*byte))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({self})")
    }
}

crate::schema::text!(
    Region,
    "A place: continent, country and site, such as `eu-de-fra1`, or a prefix of one; empty is anywhere.",
    "^[a-z0-9-]*$"
);

impl Serialize for Region {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Region {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(text: &str) -> Region {
        text.parse().unwrap()
    }

    #[test]
    fn text_and_bytes_round_trip() {
        for text in ["eu", "eu-de", "eu-de-fra1", "na-us-e"] {
            assert_eq!(region(text).to_string(), text);
            assert_eq!(Region::from_bytes(region(text).to_bytes()).unwrap(), region(text));
        }
        assert_eq!(&region("eu-de-fra").to_bytes(), b"eudefra\0");
    }

    #[test]
    fn a_prefix_contains_what_lies_in_it() {
        assert!(region("eu").contains(region("eu-de-fra1")));
        assert!(region("eu-de").contains(region("eu-de")));
        assert!(!region("eu-de").contains(region("eu")));
        assert!(!region("eu-de").contains(region("eu-fr-par")));
    }

    #[test]
    fn first_bytes_name_continent_and_country() {
        let site = region("eu-de-fra1");
        assert_eq!(
            [2, 4, 8].map(|length| site.prefix(length)),
            ["eu", "eu-de", "eu-de-fra1"].map(|text| Some(region(text)))
        );
        assert_eq!(site.prefix(0), None);
    }

    #[test]
    fn unknown_places_are_named_in_the_error() {
        for (text, says) in [
            ("moon", "continent"),
            ("", "continent"),
            ("EU", "continent"),
            ("eu-xx", "country"),
            ("eu-d", "country"),
            ("eu-de-frankfurt", "site"),
            ("eu-de-", "site"),
            ("eu-de-fra-1", "site"),
        ] {
            let error = text.parse::<Region>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn bytes_behind_a_gap_are_refused() {
        assert!(Region::from_bytes(*b"eu\0\0fra1").is_err());
        assert!(Region::from_bytes([0; 8]).is_err());
        assert!(Region::from_bytes([0xff; 8]).is_err());
    }
}
