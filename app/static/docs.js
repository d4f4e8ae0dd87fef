// The documentation of the HTTP interface: Swagger UI over openapi.json. Nothing is asked of other servers.

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null,
});
