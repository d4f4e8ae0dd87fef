// The documentation of the HTTP interface: Swagger UI over openapi.json. Nothing is asked of other servers.
// A key that is given to it is forgotten with the page, and no command that it shows has the key in it.

/** Return a request without its key, as it is shown. */
function withoutKey(request) {
  const hide = (value, name) => (name.toLowerCase() === "authorization" ? "Bearer KEY" : value);
  return request?.update("headers", (headers) => headers?.map(hide));
}

const hiding = (select) => (state, ...place) => withoutKey(select(...place));

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null,
  persistAuthorization: false,
  plugins: [{ statePlugins: { spec: { wrapSelectors: { requestFor: hiding, mutatedRequestFor: hiding } } } }],
});
