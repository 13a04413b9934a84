/** Recorded from Microsoft Graph. */
export const RECORDED =
  'Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwgInZhbHVlIjoiMTYzNTUyNzc5MCJ9fX0="'
/** What its claims say. */
export const RECORDED_CLAIMS = '{"access_token":{"nbf":{"essential":true, "value":"1635527790"}}}'
