//! What there is to see: the witness, its logs, the evidence.

use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use liotbchain_core::Root;
use liotbchain_http::{ApiError, Problem};
use serde::Serialize;
use utoipa::ToSchema;

use super::add_checkpoint::to_error;
use crate::witness::Witness;

/// Pieces of evidence that are listed.
const LISTED_MAX: u32 = 1_000;

/// The process lives.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Answers as long as the process lives.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    responses((status = OK, description = "The process lives.", body = Health)),
)]
pub(crate) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// A witness.
#[derive(Serialize, ToSchema)]
pub(crate) struct Home {
    /// The name of its key.
    #[schema(example = "liotbchain-witness/7d0f1c2b3a495867")]
    name: String,
    /// The key that verifies its cosignatures, as a line `witness NAME KEY` of a policy has it.
    verifier_key: String,
    /// Whether it checks every block of a chain before it cosigns.
    validating: bool,
    /// How many logs it follows.
    logs: usize,
}

/// Says who this witness is.
#[utoipa::path(
    get,
    path = "/",
    tag = "witness",
    responses((status = OK, description = "The witness.", body = Home)),
)]
pub(crate) async fn get_home(State(witness): State<Witness>) -> Json<Home> {
    let key = witness.key();
    Json(Home {
        name: key.name().to_owned(),
        verifier_key: key.to_string(),
        validating: witness.is_validating(),
        logs: witness.logs().len(),
    })
}

/// A log that is followed.
#[derive(Serialize, ToSchema)]
pub(crate) struct LogJson {
    /// Its name.
    origin: String,
    /// The size that was cosigned last; not there before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    size: Option<u64>,
    /// The root that was cosigned last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    root: Option<Root>,
    /// When, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cosigned_s: Option<u64>,
    /// The checkpoint, under the log's signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    checkpoint: Option<String>,
    /// Forks that are proven.
    forks: u64,
    /// All pieces of evidence, these with them.
    evidence: u64,
}

/// The logs.
#[derive(Serialize, ToSchema)]
pub(crate) struct LogsJson {
    /// In the order of the policy.
    logs: Vec<LogJson>,
}

/// Says what was cosigned last of each log.
#[utoipa::path(
    get,
    path = "/v1/logs",
    tag = "evidence",
    responses((status = OK, description = "The logs.", body = LogsJson)),
)]
pub(crate) async fn get_logs(State(witness): State<Witness>) -> Result<Json<LogsJson>, ApiError> {
    let mut logs = Vec::new();
    for log in witness.logs() {
        let latest = witness.latest(&log.origin).await.map_err(|error| to_error(&error))?;
        let counts = witness.evidence_counts(&log.origin).await;
        let (forks, evidence) = counts.map_err(|error| to_error(&error))?;
        logs.push(LogJson {
            origin: log.origin.clone(),
            size: latest.as_ref().map(|latest| latest.known.size),
            root: latest.as_ref().map(|latest| latest.known.root),
            cosigned_s: latest.as_ref().map(|latest| latest.cosigned_s),
            checkpoint: latest.map(|latest| latest.note.to_string()),
            forks,
            evidence,
        });
    }
    Ok(Json(LogsJson { logs }))
}

/// A piece of evidence.
#[derive(Serialize, ToSchema)]
pub(crate) struct EvidenceJson {
    /// Its number.
    number: u64,
    /// The log.
    origin: String,
    /// `fork`: proven, by two roots of one size. `doubt`: a proof that did not hold. `invalid`: a chain that breaks a rule.
    #[schema(example = "fork")]
    kind: &'static str,
    /// When it was kept, in seconds since 1970.
    kept_s: u64,
    /// Why.
    reason: String,
    /// Its file in the folder `evidence`.
    file: String,
}

/// The evidence.
#[derive(Serialize, ToSchema)]
pub(crate) struct EvidenceList {
    /// The newest first, 1,000 at most.
    evidence: Vec<EvidenceJson>,
}

/// Lists what was kept against logs.
#[utoipa::path(
    get,
    path = "/evidence",
    tag = "evidence",
    responses((status = OK, description = "The evidence.", body = EvidenceList)),
)]
pub(crate) async fn get_evidence(State(witness): State<Witness>) -> Result<Json<EvidenceList>, ApiError> {
    let filed = witness.evidence(LISTED_MAX).await.map_err(|error| to_error(&error))?;
    let evidence = filed.into_iter().map(|filed| EvidenceJson {
        number: filed.number,
        file: filed.file_name(),
        origin: filed.origin,
        kind: filed.kind.name(),
        kept_s: filed.kept_s,
        reason: filed.reason,
    });
    Ok(Json(EvidenceList { evidence: evidence.collect() }))
}

/// Returns the file of a piece of evidence.
#[utoipa::path(
    get,
    path = "/evidence/{number}",
    tag = "evidence",
    params(("number" = u64, Path, description = "Its number.")),
    responses(
        (status = OK, description = "The file.", body = String, content_type = "application/json"),
        (
            status = NOT_FOUND,
            description = "`evidence_not_found`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
)]
pub(crate) async fn get_evidence_file(
    State(witness): State<Witness>,
    Path(number): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let json = match number.parse() {
        Ok(number) if number <= i64::MAX as u64 => {
            witness.evidence_json(number).await.map_err(|error| to_error(&error))?
        }
        _ => None,
    };
    let message = "there is no evidence of this number: GET /evidence lists what there is";
    let json = json.ok_or_else(|| ApiError::refusal(StatusCode::NOT_FOUND, "evidence_not_found", message))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json))
}
