import {
  AZURE_ERRORS,
  type AzureAnswer,
  type AzureErrorName,
  type AzureTrace,
} from '../../../src/demo/azure/azure-errors.ts'
import type { RawAnswer } from '../../../src/demo/azure/azure-policy.ts'

/** The access token of Microsoft's samples: for https://service.contoso.com/, long expired by its own `exp`. */
export const SEED_ACCESS_TOKEN =
  'eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiIsIng1dCI6Ik5HVEZ2ZEstZnl0aEV1THdqcHdBSk9NOW4tQSJ9.eyJhdWQiOiJodHRwczovL3NlcnZpY2UuY29udG9zby5jb20vIiwiaXNzIjoiaHR0cHM6Ly9zdHMud2luZG93cy5uZXQvN2ZlODE0NDctZGE1Ny00Mzg1LWJlY2ItNmRlNTdmMjE0NzdlLyIsImlhdCI6MTM4ODQ0MDg2MywibmJmIjoxMzg4NDQwODYzLCJleHAiOjEzODg0NDQ3NjMsInZlciI6IjEuMCIsInRpZCI6IjdmZTgxNDQ3LWRhNTctNDM4NS1iZWNiLTZkZTU3ZjIxNDc3ZSIsIm9pZCI6IjY4Mzg5YWUyLTYyZmEtNGIxOC05MWZlLTUzZGQxMDlkNzRmNSIsInVwbiI6ImZyYW5rbUBjb250b3NvLmNvbSIsInVuaXF1ZV9uYW1lIjoiZnJhbmttQGNvbnRvc28uY29tIiwic3ViIjoiZGVOcUlqOUlPRTlQV0pXYkhzZnRYdDJFYWJQVmwwQ2o4UUFtZWZSTFY5OCIsImZhbWlseV9uYW1lIjoiTWlsbGVyIiwiZ2l2ZW5fbmFtZSI6IkZyYW5rIiwiYXBwaWQiOiIyZDRkMTFhMi1mODE0LTQ2YTctODkwYS0yNzRhNzJhNzMwOWUiLCJhcHBpZGFjciI6IjAiLCJzY3AiOiJ1c2VyX2ltcGVyc29uYXRpb24iLCJhY3IiOiIxIn0.JZw8jC0gptZxVC-7l5sFkdnJgP3_tRjeQEPgUn28XctVe3QqmheLZw7QVZDPCyGycDWBaqy7FLpSekET_BftDkewRhyHk9FW_KeEz0ch2c3i08NGNDbr6XYGVayNuSesYk5Aw_p3ICRlUV1bqEwk-Jkzs9EEkQg4hbefqJS6yS1HoV_2EsEhpd_wCQpxK89WPs3hLYZETRJtG5kvCCEOvSHXmDE6eTHGTnEgsIk--UlPe275Dvou4gEAwLofhLDQbMSjnlV5VLsjimNBVcSRFShoxmQwBJR_b2011Y5IuD6St5zPnzruBbZYkGNurQK63TJPWmRd3mbJsGM0mf3CUQ'

/** The refresh token of Microsoft's samples, blanks included. */
export const SEED_REFRESH_TOKEN =
  'AwABAAAAv YNqmf9SoAylD1PycGCB90xzZeEDg6oBzOIPfYsbDWNf621pKo2Q3GGTHYlmNfwoc-OlrxK69hkha2CF12azM_NYhgO668yfcUl4VBbiSHZyd1NVZG5QTIOcbObu3qnLutbpadZGAxqjIbMkQ2bQS09fTrjMBtDE3D6kSMIodpCecoANon9b0LATkpitimVCrl PM1KaPlrEqdFSBzjqfTGAMxZGUTdM0t4B4rTfgV29ghDOHRc2B-C_hHeJaJICqjZ3mY2b_YNqmf9SoAylD1PycGCB90xzZeEDg6oBzOIPfYsbDWNf621pKo2Q3GGTHYlmNfwoc-OlrxK69hkha2CF12azM_NYhgO668yfmVCrl-NyfN3oyG4ZCWu18M9-vEou4Sq-1oMDzExgAf61noxzkNiaTecM-Ve5cq6wHqYQjfV9DOz4lbceuYCAA'

/** v1, "Refreshing the access tokens": the documented success, to the byte. */
export const SEED_SUCCESS = `{
  "token_type": "Bearer",
  "expires_in": "3600",
  "expires_on": "1460404526",
  "resource": "https://service.contoso.com/",
  "access_token": "${SEED_ACCESS_TOKEN}",
  "refresh_token": "${SEED_REFRESH_TOKEN}"
}`

/**
 * v1, "Refresh Tokens for Multiple Resources": the documented success. Its page has lost the braces and the value of
 * `resource`, which are put back; the blank before the access token is its own.
 */
export const SEED_SUCCESS_MULTIPLE = `{
  "access_token": " ${SEED_ACCESS_TOKEN}",
  "token_type": "Bearer",
  "expires_in": "3600",
  "expires_on": "1388450610",
  "resource": "https://service.contoso.com/",
  "refresh_token": "${SEED_REFRESH_TOKEN}",
  "scope": "user_impersonation"
}`

/** v2, "How to generate a refresh token": the documented success, its lost braces put back. */
export const SEED_SUCCESS_V2 = `{
  "token_type": "Bearer",
  "scope": "User.Read profile openid email",
  "expires_in": 4557,
  "access_token": "eyJ0eXAiOiJKV1QiLCJub25jZSI6IkJuUXdJd0ZFc...",
  "refresh_token": "0.ARoAv4j5cvGGr0GRqy180BHbR8lB8cvIWGtHpawGN..."
}`

/** v1, "Refreshing the access tokens": the documented refusal, to the byte. */
export const SEED_INVALID_RESOURCE = String.raw`{
  "error": "invalid_resource",
  "error_description": "AADSTS50001: The application named https://foo.microsoft.com/mail.read was not found in the tenant named 295e01fc-0c56-4ac3-ac57-5d0ed568f872.  This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant.  You might have sent your authentication request to the wrong tenant.\r\nTrace ID: ef1f89f6-a14f-49de-9868-61bd4072f0a9\r\nCorrelation ID: b6908274-2c58-4e91-aea9-1f6b9c99347c\r\nTimestamp: 2016-04-11 18:59:01Z",
  "error_codes": [
    50001
  ],
  "timestamp": "2016-04-11 18:59:01Z",
  "trace_id": "ef1f89f6-a14f-49de-9868-61bd4072f0a9",
  "correlation_id": "b6908274-2c58-4e91-aea9-1f6b9c99347c"
}`

/** v1, "Authorize access to web applications": the documented refusal of an expired token, to the byte. */
export const DOCUMENTED_EXPIRED = String.raw`{
  "error": "invalid_grant",
  "error_description": "AADSTS70002: Error validating credentials. AADSTS70008: The provided authorization code or refresh token is expired. Send a new interactive authorization request for this user and resource.\r\nTrace ID: 3939d04c-d7ba-42bf-9cb7-1e5854cdce9e\r\nCorrelation ID: a8125194-2dc8-4078-90ba-7b6592a7f231\r\nTimestamp: 2016-04-11 18:00:12Z",
  "error_codes": [
    70002,
    70008
  ],
  "timestamp": "2016-04-11 18:00:12Z",
  "trace_id": "3939d04c-d7ba-42bf-9cb7-1e5854cdce9e",
  "correlation_id": "a8125194-2dc8-4078-90ba-7b6592a7f231"
}`

/** The ids of the recorded refusals. */
export const RECORDED_TRACE: AzureTrace = {
  traceId: 'b72a68c3-0926-4b8e-bc35-3150069c2800',
  correlationId: '73d656cf-54b1-4eb2-b429-26d8165a52d7',
  timestamp: '2017-05-01 22:43:20Z',
}

/** A recorded refusal as the endpoint of that version sends it, ids included. */
export function recorded(name: AzureErrorName, version: 'v1' | 'v2', resource: string): RawAnswer {
  const { status, json, headers }: AzureAnswer = AZURE_ERRORS[name]({
    ...{ version, resource, trace: RECORDED_TRACE },
    clientId: '6731de76-14a6-49ae-97bc-6eba6914391e',
    tenant: '7fe81447-da57-4385-becb-6de57f21477e',
  })
  return { status, body: JSON.stringify(json), ...(headers ? { headers } : {}) }
}

/** The page that a gateway of the provider answers with instead of JSON. */
export const UNAVAILABLE_PAGE: RawAnswer = {
  status: 503,
  body: '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd">\r\n<html xmlns="http://www.w3.org/1999/xhtml"><head><title>503 - Service unavailable.</title></head>\r\n<body><h2>Our services aren&#39;t available right now</h2><p>Ref A: 1E5F7A6C Ref B: AMS04EDGE1 Ref C: 2017-05-01T22:43:20Z</p></body></html>\r\n',
  headers: { 'content-type': 'text/html; charset=utf-8' },
}

/** What the API of Microsoft Graph answered when continuous access evaluation took a token back. */
export const CAE_CHALLENGE =
  'Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwgInZhbHVlIjoiMTYzNTUyNzc5MCJ9fX0="'

/** The claims that were then asked of the token endpoint, to the byte. */
export const CAE_CLAIMS =
  '{"access_token":{"nbf":{"essential":true,"value":"1635527790"},"xms_cc":{"values":["cp1"]}}}'
