//! SqlInfo: what the server is and can do.
//!
//! Invariant: a value says what is true today. Types matter as much: the Go driver asserts the
//! union child without a check and takes its process down when it differs (FLIGHT_SQL.md 3.1).

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::metadata::SqlInfoDataBuilder;
use arrow_flight::sql::{
    SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity,
    SqlSupportedGroupBy, SqlSupportedSubqueries, SqlSupportedTransaction, SqlSupportedUnions,
};
use basalt_engine::error::ErrorCode;
use tonic::Status;

use super::{FlightOptions, status};

/// The values, by id.
pub(super) struct SqlInfos {
    values: SqlInfoDataBuilder,
}

impl SqlInfos {
    pub(super) fn new(options: &FlightOptions) -> Self {
        let mut values = SqlInfoDataBuilder::new();
        server(&mut values, options);
        syntax(&mut values);
        functions(&mut values);
        semantics(&mut values);
        names(&mut values);
        Self { values }
    }

    /// The schema of every answer.
    pub(super) fn schema(&self) -> SchemaRef {
        SqlInfoDataBuilder::schema().clone().into()
    }

    /// The values with these ids: all for no ids; an unknown id has no row.
    pub(super) fn batch(&self, ids: &[u32]) -> Result<RecordBatch, Status> {
        self.values
            .clone()
            .build()
            .and_then(|data| data.record_batch(ids.iter().copied()))
            .map_err(|e| status::error(ErrorCode::Internal, format!("SqlInfo: {e}")))
    }
}

fn server(values: &mut SqlInfoDataBuilder, options: &FlightOptions) {
    values.append(SqlInfo::FlightSqlServerName, options.server_name.as_str());
    values.append(SqlInfo::FlightSqlServerVersion, options.server_version.as_str());
    values.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    values.append(SqlInfo::FlightSqlServerReadOnly, false);
    values.append(SqlInfo::FlightSqlServerSql, true);
    values.append(SqlInfo::FlightSqlServerSubstrait, false);
    values.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    values.append(SqlInfo::FlightSqlServerCancel, true);
    values.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    values.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    // 0: statements may take as long as they need.
    values.append(SqlInfo::FlightSqlServerStatementTimeout, 0);
    values.append(SqlInfo::FlightSqlServerTransactionTimeout, 0);
}

fn syntax(values: &mut SqlInfoDataBuilder) {
    values.append(SqlInfo::SqlDdlCatalog, false);
    values.append(SqlInfo::SqlDdlSchema, false);
    values.append(SqlInfo::SqlDdlTable, true);
    let lower = SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32;
    values.append(SqlInfo::SqlIdentifierCase, lower);
    values.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    // A quoted name keeps its case, for which the enumeration has no value.
    let unknown = SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32;
    values.append(SqlInfo::SqlQuotedIdentifierCase, unknown);
    values.append(SqlInfo::SqlAllTablesAreSelectable, true);
    // Last when ascending, first when descending.
    values.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    values.append(SqlInfo::SqlKeywords, list(&["COPY", "DISTKEY", "DISTSTYLE", "SORTKEY"]));
    // Patterns of metadata requests know no escape.
    values.append(SqlInfo::SqlSearchStringEscape, "");
    values.append(SqlInfo::SqlExtraNameCharacters, "");
}

/// Functions that every build has, by XDBC's families (not a list of all there are).
fn functions(values: &mut SqlInfoDataBuilder) {
    let numeric = [
        "ABS", "ACOS", "ASIN", "ATAN", "ATAN2", "CEIL", "COS", "COT", "DEGREES", "EXP", "FLOOR",
        "LN", "LOG", "LOG10", "PI", "POWER", "RADIANS", "RANDOM", "ROUND", "SIGNUM", "SIN", "SQRT",
        "TAN", "TRUNC",
    ];
    let string = [
        "ASCII", "CHR", "CONCAT", "LEFT", "LOWER", "LPAD", "LTRIM", "OCTET_LENGTH", "REPEAT",
        "REPLACE", "REVERSE", "RIGHT", "RPAD", "RTRIM", "SPLIT_PART", "STRPOS", "SUBSTR", "UPPER",
    ];
    let datetime = ["DATE_BIN", "DATE_PART", "DATE_TRUNC", "EXTRACT", "NOW", "TO_TIMESTAMP"];
    values.append(SqlInfo::SqlNumericFunctions, list(&numeric));
    values.append(SqlInfo::SqlStringFunctions, list(&string));
    values.append(SqlInfo::SqlSystemFunctions, list(&["COALESCE", "NULLIF"]));
    values.append(SqlInfo::SqlDatetimeFunctions, list(&datetime));
}

fn semantics(values: &mut SqlInfoDataBuilder) {
    values.append(SqlInfo::SqlSupportsColumnAliasing, true);
    values.append(SqlInfo::SqlNullPlusNullIsNull, true);
    values.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    values.append(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false);
    values.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    values.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    let group_by = bit(SqlSupportedGroupBy::SqlGroupByUnrelated as i32);
    values.append(SqlInfo::SqlSupportedGroupBy, group_by);
    values.append(SqlInfo::SqlSupportsLikeEscapeClause, true);
    values.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    values.append(SqlInfo::SqlSupportsIntegrityEnhancementFacility, false);
    let outer = SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32;
    values.append(SqlInfo::SqlOuterJoinsSupportLevel, outer);
    values.append(SqlInfo::SqlSelectForUpdateSupported, false);
    values.append(SqlInfo::SqlStoredProceduresSupported, false);
    let subqueries = bit(SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32)
        | bit(SqlSupportedSubqueries::SqlSubqueriesInExists as i32)
        | bit(SqlSupportedSubqueries::SqlSubqueriesInIns as i32);
    values.append(SqlInfo::SqlSupportedSubqueries, subqueries);
    values.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    let unions =
        bit(SqlSupportedUnions::SqlUnion as i32) | bit(SqlSupportedUnions::SqlUnionAll as i32);
    values.append(SqlInfo::SqlSupportedUnions, unions);
}

fn names(values: &mut SqlInfoDataBuilder) {
    values.append(SqlInfo::SqlSchemaTerm, "schema");
    values.append(SqlInfo::SqlProcedureTerm, "");
    values.append(SqlInfo::SqlCatalogTerm, "catalog");
    values.append(SqlInfo::SqlCatalogAtStart, true);
    // Schemas and catalogs may be named in queries only: no bit stands for that.
    values.append(SqlInfo::SqlSchemasSupportedActions, 0);
    values.append(SqlInfo::SqlCatalogsSupportedActions, 0);
    values.append(SqlInfo::SqlSupportedPositionedCommands, 0);
    // 0: no limit of its own.
    values.append(SqlInfo::SqlMaxBinaryLiteralLength, 0_i64);
}

fn bit(position: i32) -> i32 {
    1 << position
}

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Int32Type, UInt32Type};

    use super::*;

    fn infos() -> SqlInfos {
        SqlInfos::new(&FlightOptions::default())
    }

    #[test]
    fn the_transaction_level_is_an_int32_that_says_none() {
        let batch = infos().batch(&[SqlInfo::FlightSqlServerTransaction as u32]).unwrap();
        let value = batch.column(1).as_union().value(0);
        assert_eq!(value.as_primitive::<Int32Type>().value(0), 0);
    }

    #[test]
    fn an_unknown_id_has_no_row_and_no_ids_ask_for_all() {
        let infos = infos();
        let batch = infos.batch(&[1, 999_999]).unwrap();
        assert_eq!(batch.column(0).as_primitive::<UInt32Type>().values(), &[1]);
        assert!(infos.batch(&[]).unwrap().num_rows() > 40);
        assert_eq!(infos.batch(&[999_999]).unwrap().num_rows(), 0);
    }

    #[test]
    fn the_announced_schema_is_the_one_sent() {
        let infos = infos();
        assert_eq!(infos.batch(&[]).unwrap().schema(), infos.schema());
    }
}
