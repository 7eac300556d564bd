//! The description of the routes, and a page to try them out in a browser.

use axum::Router;
use utoipa::openapi::{
    Components, OpenApi,
    security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Returns `/openapi.json` and `/apidocs/`, served from the binary: nothing is fetched from elsewhere.
///
/// Adds the security scheme `token`; a route that writes names it with `security((), ("token" = []))`, so that the page
/// sends a token where one was entered.
pub fn apidocs(mut openapi: OpenApi) -> Router {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The server's API_TOKEN; needed only where one is set."))
        .build();
    openapi
        .components
        .get_or_insert_with(Components::default)
        .add_security_scheme("token", SecurityScheme::Http(bearer));
    // Without this the page asks swagger.io for its opinion of the file.
    let config = Config::default().validator_url("none").try_it_out_enabled(true);
    SwaggerUi::new("/apidocs").url("/openapi.json", openapi).config(config).into()
}
