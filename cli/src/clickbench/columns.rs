//! The 105 columns of `hits`, and how their values are spread.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

/// The columns as SQL, in the order of the original. Their names have capitals.
pub(super) const COLUMNS: &str = "\"WatchID\" BIGINT NOT NULL, \"JavaEnable\" SMALLINT NOT NULL, \
    \"Title\" VARCHAR NOT NULL, \"GoodEvent\" SMALLINT NOT NULL, \
    \"EventTime\" BIGINT NOT NULL, \"EventDate\" DATE NOT NULL, \
    \"CounterID\" INTEGER NOT NULL, \"ClientIP\" INTEGER NOT NULL, \
    \"RegionID\" INTEGER NOT NULL, \"UserID\" BIGINT NOT NULL, \
    \"CounterClass\" SMALLINT NOT NULL, \"OS\" SMALLINT NOT NULL, \
    \"UserAgent\" SMALLINT NOT NULL, \"URL\" VARCHAR NOT NULL, \
    \"Referer\" VARCHAR NOT NULL, \"IsRefresh\" SMALLINT NOT NULL, \
    \"RefererCategoryID\" SMALLINT NOT NULL, \"RefererRegionID\" INTEGER NOT NULL, \
    \"URLCategoryID\" SMALLINT NOT NULL, \"URLRegionID\" INTEGER NOT NULL, \
    \"ResolutionWidth\" SMALLINT NOT NULL, \"ResolutionHeight\" SMALLINT NOT NULL, \
    \"ResolutionDepth\" SMALLINT NOT NULL, \"FlashMajor\" SMALLINT NOT NULL, \
    \"FlashMinor\" SMALLINT NOT NULL, \"FlashMinor2\" VARCHAR NOT NULL, \
    \"NetMajor\" SMALLINT NOT NULL, \"NetMinor\" SMALLINT NOT NULL, \
    \"UserAgentMajor\" SMALLINT NOT NULL, \"UserAgentMinor\" VARCHAR NOT NULL, \
    \"CookieEnable\" SMALLINT NOT NULL, \"JavascriptEnable\" SMALLINT NOT NULL, \
    \"IsMobile\" SMALLINT NOT NULL, \"MobilePhone\" SMALLINT NOT NULL, \
    \"MobilePhoneModel\" VARCHAR NOT NULL, \"Params\" VARCHAR NOT NULL, \
    \"IPNetworkID\" INTEGER NOT NULL, \"TraficSourceID\" SMALLINT NOT NULL, \
    \"SearchEngineID\" SMALLINT NOT NULL, \"SearchPhrase\" VARCHAR NOT NULL, \
    \"AdvEngineID\" SMALLINT NOT NULL, \"IsArtifical\" SMALLINT NOT NULL, \
    \"WindowClientWidth\" SMALLINT NOT NULL, \"WindowClientHeight\" SMALLINT NOT NULL, \
    \"ClientTimeZone\" SMALLINT NOT NULL, \"ClientEventTime\" BIGINT NOT NULL, \
    \"SilverlightVersion1\" SMALLINT NOT NULL, \"SilverlightVersion2\" SMALLINT NOT NULL, \
    \"SilverlightVersion3\" INTEGER NOT NULL, \"SilverlightVersion4\" SMALLINT NOT NULL, \
    \"PageCharset\" VARCHAR NOT NULL, \"CodeVersion\" INTEGER NOT NULL, \
    \"IsLink\" SMALLINT NOT NULL, \"IsDownload\" SMALLINT NOT NULL, \
    \"IsNotBounce\" SMALLINT NOT NULL, \"FUniqID\" BIGINT NOT NULL, \
    \"OriginalURL\" VARCHAR NOT NULL, \"HID\" INTEGER NOT NULL, \
    \"IsOldCounter\" SMALLINT NOT NULL, \"IsEvent\" SMALLINT NOT NULL, \
    \"IsParameter\" SMALLINT NOT NULL, \"DontCountHits\" SMALLINT NOT NULL, \
    \"WithHash\" SMALLINT NOT NULL, \"HitColor\" VARCHAR NOT NULL, \
    \"LocalEventTime\" BIGINT NOT NULL, \"Age\" SMALLINT NOT NULL, \
    \"Sex\" SMALLINT NOT NULL, \"Income\" SMALLINT NOT NULL, \
    \"Interests\" SMALLINT NOT NULL, \"Robotness\" SMALLINT NOT NULL, \
    \"RemoteIP\" INTEGER NOT NULL, \"WindowName\" INTEGER NOT NULL, \
    \"OpenerName\" INTEGER NOT NULL, \"HistoryLength\" SMALLINT NOT NULL, \
    \"BrowserLanguage\" VARCHAR NOT NULL, \"BrowserCountry\" VARCHAR NOT NULL, \
    \"SocialNetwork\" VARCHAR NOT NULL, \"SocialAction\" VARCHAR NOT NULL, \
    \"HTTPError\" SMALLINT NOT NULL, \"SendTiming\" INTEGER NOT NULL, \
    \"DNSTiming\" INTEGER NOT NULL, \"ConnectTiming\" INTEGER NOT NULL, \
    \"ResponseStartTiming\" INTEGER NOT NULL, \"ResponseEndTiming\" INTEGER NOT NULL, \
    \"FetchTiming\" INTEGER NOT NULL, \"SocialSourceNetworkID\" SMALLINT NOT NULL, \
    \"SocialSourcePage\" VARCHAR NOT NULL, \"ParamPrice\" BIGINT NOT NULL, \
    \"ParamOrderID\" VARCHAR NOT NULL, \"ParamCurrency\" VARCHAR NOT NULL, \
    \"ParamCurrencyID\" SMALLINT NOT NULL, \"OpenstatServiceName\" VARCHAR NOT NULL, \
    \"OpenstatCampaignID\" VARCHAR NOT NULL, \"OpenstatAdID\" VARCHAR NOT NULL, \
    \"OpenstatSourceID\" VARCHAR NOT NULL, \"UTMSource\" VARCHAR NOT NULL, \
    \"UTMMedium\" VARCHAR NOT NULL, \"UTMCampaign\" VARCHAR NOT NULL, \
    \"UTMContent\" VARCHAR NOT NULL, \"UTMTerm\" VARCHAR NOT NULL, \
    \"FromTag\" VARCHAR NOT NULL, \"HasGCLID\" SMALLINT NOT NULL, \
    \"RefererHash\" BIGINT NOT NULL, \"URLHash\" BIGINT NOT NULL, \
    \"CLID\" INTEGER NOT NULL";

/// How the values of a column are spread.
#[derive(Debug, Clone, Copy)]
pub(super) enum Values {
    /// Another one in each row.
    RowId,
    /// The row's number.
    RowNumber,
    /// The site that was hit.
    Counter,
    /// The day of the hit.
    Date,
    /// The second of the hit, since 1970.
    Time,
    /// Who it was.
    User,
    /// A property of the user: one of so many, the low ones more often the larger the power; any of 64 bits
    /// when there are 0.
    OfUser(u64, i32),
    /// A word of the user, of so many.
    OfUserWords(u64),
    /// Pixels of the user's screen, up to so many.
    Screen(u64),
    /// 1 in so many of 1,000 rows, else 0.
    Flag(u64),
    /// 0 in so many of 1,000 rows, else one of so many.
    Mostly(u64, u64),
    /// Where the visit came from: -1 to 10.
    Traffic,
    /// Empty in so many of 1,000 rows, else one of so many words.
    Words(u64, u64),
    /// What was searched for; mostly nothing.
    Phrase,
    /// The page's title.
    Title,
    /// The page.
    Url,
    /// The page before, if any.
    Referer,
    /// The page as it was asked for; mostly empty.
    OriginalUrl,
    /// Hashes of these.
    UrlHash,
    /// Of the page before.
    RefererHash,
}

/// The values of each column, in their order.
pub(super) const VALUES: [(&str, Values); 105] = [
    ("WatchID", Values::RowId),
    ("JavaEnable", Values::Flag(800)),
    ("Title", Values::Title),
    ("GoodEvent", Values::Flag(1000)),
    ("EventTime", Values::Time),
    ("EventDate", Values::Date),
    ("CounterID", Values::Counter),
    ("ClientIP", Values::OfUser(4_000_000_000, 1)),
    ("RegionID", Values::OfUser(9_000, 4)),
    ("UserID", Values::User),
    ("CounterClass", Values::Mostly(700, 2)),
    ("OS", Values::OfUser(90, 5)),
    ("UserAgent", Values::OfUser(80, 3)),
    ("URL", Values::Url),
    ("Referer", Values::Referer),
    ("IsRefresh", Values::Flag(120)),
    ("RefererCategoryID", Values::Mostly(850, 13_000)),
    ("RefererRegionID", Values::Mostly(600, 900)),
    ("URLCategoryID", Values::Mostly(300, 13_000)),
    ("URLRegionID", Values::Mostly(400, 800)),
    ("ResolutionWidth", Values::Screen(1920)),
    ("ResolutionHeight", Values::Screen(1080)),
    ("ResolutionDepth", Values::OfUser(32, 2)),
    ("FlashMajor", Values::OfUser(12, 2)),
    ("FlashMinor", Values::OfUser(9, 3)),
    ("FlashMinor2", Values::Words(500, 300)),
    ("NetMajor", Values::Mostly(900, 4)),
    ("NetMinor", Values::Mostly(900, 9)),
    ("UserAgentMajor", Values::OfUser(60, 2)),
    ("UserAgentMinor", Values::OfUserWords(300)),
    ("CookieEnable", Values::Flag(990)),
    ("JavascriptEnable", Values::Flag(995)),
    ("IsMobile", Values::Flag(60)),
    ("MobilePhone", Values::Mostly(930, 80)),
    ("MobilePhoneModel", Values::Words(950, 170)),
    ("Params", Values::Words(990, 5_000)),
    ("IPNetworkID", Values::OfUser(4_000_000, 2)),
    ("TraficSourceID", Values::Traffic),
    ("SearchEngineID", Values::Mostly(850, 90)),
    ("SearchPhrase", Values::Phrase),
    ("AdvEngineID", Values::Mostly(993, 19)),
    ("IsArtifical", Values::Flag(10)),
    ("WindowClientWidth", Values::Screen(1900)),
    ("WindowClientHeight", Values::Screen(950)),
    ("ClientTimeZone", Values::OfUser(720, 4)),
    ("ClientEventTime", Values::Time),
    ("SilverlightVersion1", Values::OfUser(6, 2)),
    ("SilverlightVersion2", Values::Flag(300)),
    ("SilverlightVersion3", Values::OfUser(61_000, 3)),
    ("SilverlightVersion4", Values::Mostly(980, 9)),
    ("PageCharset", Values::Words(30, 70)),
    ("CodeVersion", Values::Mostly(10, 2_000)),
    ("IsLink", Values::Flag(160)),
    ("IsDownload", Values::Flag(5)),
    ("IsNotBounce", Values::Flag(310)),
    ("FUniqID", Values::OfUser(0, 1)),
    ("OriginalURL", Values::OriginalUrl),
    ("HID", Values::RowNumber),
    ("IsOldCounter", Values::Flag(0)),
    ("IsEvent", Values::Flag(0)),
    ("IsParameter", Values::Flag(0)),
    ("DontCountHits", Values::Flag(60)),
    ("WithHash", Values::Flag(0)),
    ("HitColor", Values::Words(0, 5)),
    ("LocalEventTime", Values::Time),
    ("Age", Values::OfUser(56, 1)),
    ("Sex", Values::OfUser(3, 1)),
    ("Income", Values::OfUser(5, 1)),
    ("Interests", Values::OfUser(32_000, 2)),
    ("Robotness", Values::Mostly(970, 60)),
    ("RemoteIP", Values::OfUser(4_000_000_000, 1)),
    ("WindowName", Values::Mostly(800, 30_000)),
    ("OpenerName", Values::Mostly(800, 30_000)),
    ("HistoryLength", Values::Mostly(300, 50)),
    ("BrowserLanguage", Values::OfUserWords(90)),
    ("BrowserCountry", Values::OfUserWords(300)),
    ("SocialNetwork", Values::Words(998, 40)),
    ("SocialAction", Values::Words(998, 20)),
    ("HTTPError", Values::Mostly(999, 20)),
    ("SendTiming", Values::Mostly(550, 30_000)),
    ("DNSTiming", Values::Mostly(550, 30_000)),
    ("ConnectTiming", Values::Mostly(550, 30_000)),
    ("ResponseStartTiming", Values::Mostly(550, 30_000)),
    ("ResponseEndTiming", Values::Mostly(550, 30_000)),
    ("FetchTiming", Values::Mostly(550, 30_000)),
    ("SocialSourceNetworkID", Values::Mostly(990, 30)),
    ("SocialSourcePage", Values::Words(990, 20_000)),
    ("ParamPrice", Values::Mostly(995, 100_000)),
    ("ParamOrderID", Values::Words(998, 10_000)),
    ("ParamCurrency", Values::Words(0, 3)),
    ("ParamCurrencyID", Values::Mostly(995, 3)),
    ("OpenstatServiceName", Values::Words(995, 50)),
    ("OpenstatCampaignID", Values::Words(995, 9_000)),
    ("OpenstatAdID", Values::Words(995, 20_000)),
    ("OpenstatSourceID", Values::Words(995, 5_000)),
    ("UTMSource", Values::Words(985, 2_000)),
    ("UTMMedium", Values::Words(985, 300)),
    ("UTMCampaign", Values::Words(985, 5_000)),
    ("UTMContent", Values::Words(988, 5_000)),
    ("UTMTerm", Values::Words(990, 20_000)),
    ("FromTag", Values::Words(995, 6_000)),
    ("HasGCLID", Values::Flag(4)),
    ("RefererHash", Values::RefererHash),
    ("URLHash", Values::UrlHash),
    ("CLID", Values::Mostly(985, 2_000)),
];

/// Arrow's view of the columns.
pub(super) fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let fields = COLUMNS.split(", ").map(|column| {
            let mut words = column.split(' ');
            let name = words.next().unwrap_or_default().trim_matches('"');
            let data_type = match words.next() {
                Some("SMALLINT") => DataType::Int16,
                Some("INTEGER") => DataType::Int32,
                Some("BIGINT") => DataType::Int64,
                Some("DATE") => DataType::Date32,
                _ => DataType::Utf8,
            };
            Field::new(name, data_type, false)
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    });
    Arc::clone(&SCHEMA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_its_values() {
        let schema = schema();
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, VALUES.map(|(name, _)| name));
    }
}
