import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { RouteConfig } from '../../../../src/config/config.ts'
import { ownCookieNames } from '../../../../src/proxy/headers/dropped.ts'
import { compileRequestHeaders, type OurRequestFields } from '../../../../src/proxy/headers/request.ts'
import { routeWith } from '../../../kit/upstream/routes.ts'

const site = {
  publicUrl: 'https://app.example.com',
  isOwnCookie: ownCookieNames('__Host-Http-cloakroom'),
}

const OURS: OurRequestFields = { clientAddress: '203.0.113.7', requestId: 'r-1' }

function toUpstream(raw: string[], ours: Partial<OurRequestFields> = {}, parts: Partial<RouteConfig> = {}) {
  const route = routeWith({ path: '/api', ...parts })
  return compileRequestHeaders([route], site)(route, raw, { ...OURS, ...ours })
}

/** All values of a field, whatever the spelling of its name. */
function valuesOf(fields: string[], name: string): string[] {
  return fields.filter((_, i) => i % 2 === 1 && fields[i - 1]!.toLowerCase() === name)
}

describe('to the upstream', () => {
  test('ordinary fields cross unchanged, repeated ones in their order', () => {
    const raw = [
      'Accept',
      'a/b',
      'X-Thing',
      '1',
      'x-thing',
      '2',
      'X-Latin',
      'caf\u00e9',
      'sentry-trace',
      '00-ab-cd-01',
    ]
    assert.deepEqual(toUpstream(raw).slice(0, raw.length), raw)
  })

  const DROPPED = [
    ['Host', 'evil.example'],
    ['Connection', 'keep-alive'],
    ['Keep-Alive', 'timeout=5'],
    ['Traceparent', '00-11111111111111111111111111111111-2222222222222222-01'],
    ['TraceState', 'x=y'],
    ['Baggage', 'admin=yes'],
    ['B3', '0'],
    ['X-B3-Sampled', '1'],
    ['Proxy', 'http://evil.example'],
    ['Proxy-Connection', 'keep-alive'],
    ['Proxy-Authorization', 'Basic x'],
    ['TE', 'trailers'],
    ['Trailer', 'x'],
    ['Transfer-Encoding', 'chunked'],
    ['Transfer_Encoding', 'chunked'],
    ['Content-Length', '5'],
    ['Content_Length', '5'],
    ['Upgrade', 'h2c'],
    ['HTTP2-Settings', 'x'],
    ['Expect', '100-continue'],
    ['Authorization', 'Bearer evil'],
    ['AUTHORIZATION', 'Bearer evil'],
    ['X-CSRF', '1'],
    ['Forwarded', 'for=6.6.6.6'],
    ['X-Forwarded-For', '6.6.6.6'],
    ['X_Forwarded_For', '6.6.6.6'],
    ['x-forwarded_proto', 'http'],
    ['X-Forwarded-User', 'root'],
    ['X_Forwarded_User', 'root'],
    ['X-Forwarded-Prefix', '/x'],
    ['X-Real-IP', '6.6.6.6'],
    ['X-Original-URL', '/admin'],
    ['X-Rewrite-URL', '/admin'],
    ['X-HTTP-Method-Override', 'DELETE'],
    ['X-HTTP-Method', 'DELETE'],
    ['X-Method-Override', 'DELETE'],
    ['X-MS-CLIENT-PRINCIPAL', 'x'],
    ['x-amzn-oidc-data', 'x'],
    ['Client-Cert', 'x'],
    ['Client-Cert-Chain', 'x'],
    ['X-Request-Id', 'spoofed'],
    ['X.Forwarded.For', '6.6.6.6'],
    ['X~Forwarded+Proto', 'http'],
    ["X!Real'IP", '6.6.6.6'],
    ['X|Request.Id', 'spoofed'],
    ['X.Forwarded.Made.Up', 'x'],
    ['Remote.User', 'root'],
    ['Proxy.Authorization', 'Basic x'],
    ['Transfer.Encoding', 'chunked'],
    ['Content*Length', '5'],
  ]
  for (const [name = '', value = ''] of DROPPED) {
    test(`the client's ${name} does not cross`, () => {
      assert.deepEqual(toUpstream([name, value, 'Accept', '*/*']), toUpstream(['Accept', '*/*']))
    })
  }

  // One name of each family: what the field's proxies set for an upstream to believe.
  const BELIEVED = [
    ...[
      'Remote-User',
      'Remote-Groups',
      'Remote-Addr',
      'X-Remote-User',
      'X-Remote-Group',
      'X-Remote-Extra-Scopes',
    ],
    ...['X-WEBAUTH-USER', 'X-WEBAUTH-ROLE', 'X-Goog-Authenticated-User-Email', 'X-Goog-IAP-JWT-Assertion'],
    ...[
      'Cf-Access-Jwt-Assertion',
      'Cf-Access-Authenticated-User-Email',
      'CF-Connecting-IP',
      'CF-Connecting-IPv6',
    ],
    ...[
      'OIDC_CLAIM_sub',
      'OIDC_CLAIM_groups',
      'OIDC_access_token',
      'Impersonate-User',
      'Impersonate-Extra-x',
    ],
    ...[
      'SSL_CLIENT_S_DN',
      'SSL-Client-Verify',
      'ssl-client-subject-dn',
      'X-SSL-Client-CN',
      'X-SSL-Cert',
      'X-SSL',
    ],
    ...['Client-IP', 'CLIENT_IP', 'X-Client-IP', 'X-Cluster-Client-IP', 'X-Real-IP', 'X-Real-Port', 'X-Host'],
    ...['X-Envoy-External-Address', 'X-Envoy-Original-Path', 'X-Envoy-Internal', 'X-Forwarded-Client-Cert'],
    ...['X-Forwarded-User', 'X-Forwarded-Email', 'X-Forwarded-Groups', 'X-Forwarded-Preferred-Username'],
    ...['X-Forwarded-Access-Token', 'X-Auth-Request-User', 'X-Auth-Request-Groups', 'X-Authentik-Username'],
    ...['X-authentik-groups', 'X-Pomerium-Jwt-Assertion', 'X-Pomerium-Claim-Email', 'X-Amzn-Oidc-Data'],
    ...['X-Amzn-Mtls-Clientcert-Subject', 'X-MS-CLIENT-PRINCIPAL', 'X-MS-CLIENT-PRINCIPAL-NAME'],
    ...[
      'X-MS-TOKEN-AAD-ACCESS-TOKEN',
      'X-Original-URL',
      'X-Original-URI',
      'X-Original-Host',
      'X-Rewrite-URL',
    ],
    ...['True-Client-IP', 'Fastly-Client-IP', 'Fastly-SSL', 'X-Client-Cert', 'X-ARR-ClientCert', 'X-ARR-SSL'],
    ...[
      'X-Azure-ClientIP',
      'X-Azure-SocketIP',
      'X-Azure-FDID',
      'X-Consumer-Username',
      'X-Consumer-Custom-ID',
    ],
    ...['X-Credential-Identifier', 'X-Anonymous-Consumer', 'X-Authenticated-Userid', 'X-Authenticated-Scope'],
    ...['X-Userinfo', 'X-ID-Token', 'X-User', 'X-User-Id', 'X-User-Email', 'X-User-Roles', 'X-Username'],
    ...['X-Auth-Userid', 'X-Auth-Roles', 'X-Vouch-User', 'X-Token-User-Email', 'Tailscale-User-Login'],
    ...[
      'Teleport-Jwt-Assertion',
      'X-Appengine-User-Ip',
      'X-Endpoint-API-UserInfo',
      'X-Apigateway-Api-Userinfo',
    ],
    ...['Shib-Identity-Provider', 'MELLON_NAME_ID', 'CAS-User', 'iv-user', 'iv-creds', 'SM_USER', 'SMUSER'],
    ...['OAM_REMOTE_USER', 'Osso-User-Dn', 'WL-Proxy-Client-IP', 'WL-Proxy-Client-Cert', '$WSRU', '$WSCC'],
    ...['X-JWT-Assertion', 'x-proxy-user', 'x-proxy-roles', 'es-security-runas-user', 'X-Proxy-REMOTE-USER'],
    ...['Fly-Client-IP', 'X-Vercel-Forwarded-For', 'X-Nf-Client-Connection-Ip', 'DO-Connecting-IP'],
    ...['Incap-Client-IP', 'CloudFront-Viewer-Address', 'CloudFront-Forwarded-Proto', 'X-Originating-IP'],
    ...[
      'X-ProxyUser-Ip',
      'Front-End-Https',
      'X-Url-Scheme',
      'X-Scheme',
      'CF-Visitor',
      'X-HTTP-Host-Override',
    ],
    ...['l5d-client-id', 'X-RH-Identity', 'X-JWT-Payload', 'X-Sandstorm-User-Id', 'X-Replit-User-Name'],
    ...['Sf-Context-Current-User', 'Cf-Client-Cert-Der-Base64', 'X-TLS-Client-Cert', 'TLS-Client-Subject'],
    ...['X-Auth-Name', 'Forwarded-For', 'X-True-Client-IP', 'SCRIPT_NAME', 'PATH_INFO', 'X-Script-Name'],
    ...['X-Client-Verify', 'X-Client-DN', 'X-Jwt-Claim-Sub', 'X-Sendfile-Type', 'X-Accel-Mapping'],
    ...['X-Middleware-Subrequest', 'X-Middleware-Subrequest-Id'],
  ]
  test("no identity or address header of the field's proxies crosses, in any spelling", () => {
    const plain = toUpstream(['Accept', '*/*'])
    for (const name of BELIEVED) {
      const spelt = [name, name.toLowerCase(), name.toUpperCase(), name.replaceAll(/[-_]/g, '_')]
      spelt.push(name.replaceAll(/[-_]/g, '.'), name.replace(/[-_]/, '~'), name.replaceAll(/[-_]/g, '-'))
      for (const one of spelt) assert.deepEqual(toUpstream([one, 'evil', 'Accept', '*/*']), plain, one)
    }
  })

  // Data of applications and of browsers, traces, and credentials that prove themselves.
  const PASSED = [
    ...[
      'Accept',
      'Accept-Language',
      'User-Agent',
      'Referer',
      'Origin',
      'Content-Type',
      'If-None-Match',
      'Range',
    ],
    ...[
      'Sec-Fetch-Site',
      'Sec-CH-UA',
      'Sec-WebSocket-Key',
      'DNT',
      'Save-Data',
      'Priority',
      'SOAPAction',
      'TEam',
    ],
    ...['X-Requested-With', 'X-CSRF-Token', 'X-XSRF-TOKEN', 'X-Api-Key', 'X-Api-Version', 'X-App-Version'],
    ...['X-Client-Version', 'X-Client-Id', 'X-Client-Data', 'X-Correlation-Id', 'Newrelic', 'X-Tenant-Id'],
    ...['X-User-Agent', 'X-User-Timezone', 'X-Users-Page', 'X-Auth-Token', 'X-Amz-Date', 'X-Amzn-Trace-Id'],
    ...['X-Cloud-Trace-Context', 'sentry-trace', 'x-datadog-trace-id', 'Tus-Resumable', 'Upload-Offset'],
    ...['X-Hub-Signature-256', 'X-GitHub-Event', 'X-Hasura-Role', 'X-Grafana-Org-Id', 'X-SignalR-User-Agent'],
    ...['Ocp-Apim-Subscription-Key', 'Idempotency-Key', 'Last-Event-ID', 'Prefer', 'Depth', 'Destination'],
    ...[
      'X-Realm',
      'X-Remote',
      'X-Hostname',
      'Remote',
      'Clients',
      'Cf-Ray',
      'Cloudroom',
      'Smart',
      'Oidc',
      'Shibboleth',
    ],
    ...[
      'X-Consumer',
      'X-Originator',
      'X-Device-Id',
      'X-Session-Id',
      'X-Access-Token',
      'X-Sslx',
      'iv',
      'Wl-Proxy',
    ],
  ]
  test("an application's own headers cross", () => {
    const raw = PASSED.flatMap((name) => [name, 'data'])
    assert.deepEqual(toUpstream(raw).slice(0, raw.length), raw)
  })

  test('a header that any route adds is taken from the client on every other route, in every spelling', () => {
    const api = routeWith({ path: '/api', headers: [{ name: 'x-tier', value: '{claims.tier}' }] })
    const other = routeWith({ path: '/ws', headers: [{ name: 'X-Odd~Name', value: 'yes' }] })
    const open = routeWith({ path: '/api/public', auth: 'anonymous' })
    const requestHeaders = compileRequestHeaders([api, open, other], site)
    const names = [
      'X-Tier',
      'x_tier',
      'X.TIER',
      'x~tier',
      'X-Odd-Name',
      'x_odd_name',
      'X-Odd~Name',
      'x-ODD.name',
    ]
    const raw = names.flatMap((name) => [name, 'evil'])
    for (const route of [api, open, other]) {
      const fields = requestHeaders(route, raw, OURS)
      assert.doesNotMatch(fields.join(), /evil/, route.path)
    }
  })

  test('our own fields are added after', () => {
    assert.deepEqual(toUpstream([], { accessToken: 'at-1' }), [
      'authorization',
      'Bearer at-1',
      'x-forwarded-for',
      '203.0.113.7',
      'x-forwarded-proto',
      'https',
      'x-forwarded-host',
      'app.example.com',
      'forwarded',
      'for=203.0.113.7;host="app.example.com";proto=https',
      'via',
      '1.1 cloakroom-69baddde',
      'x-request-id',
      'r-1',
    ])
  })

  test('on a rewritten route the upstream is told the path that was replaced, and nowhere else', () => {
    const prefixOf = (parts: Partial<RouteConfig>) =>
      valuesOf(
        toUpstream(['X-Forwarded-Prefix', '/evil', 'X_Forwarded_Prefix', '/evil'], {}, parts),
        'x-forwarded-prefix',
      )
    assert.deepEqual(prefixOf({ path: '/api/orders', rewrite: '/v1' }), ['/api/orders'])
    assert.deepEqual(prefixOf({ path: '/api/orders', rewrite: '/' }), ['/api/orders'])
    assert.deepEqual(prefixOf({ path: '/api/orders' }), [])
    assert.deepEqual(prefixOf({ path: '/', rewrite: '/v1' }), [])
    const headers = [{ name: 'x-forwarded-prefix', value: '/mine' }]
    assert.deepEqual(prefixOf({ path: '/api', rewrite: '/v1', headers }), ['/mine'])
    assert.deepEqual(prefixOf({ path: '/api', headers }), ['/mine'])
  })

  test('an IPv6 client is bracketed and quoted in Forwarded', () => {
    const [forwarded] = valuesOf(toUpstream([], { clientAddress: '2001:db8::1' }), 'forwarded')
    assert.equal(forwarded, 'for="[2001:db8::1]";host="app.example.com";proto=https')
  })

  test('without a token there is no Authorization at all', () => {
    assert.deepEqual(
      valuesOf(toUpstream(['Authorization', 'Bearer evil', 'authorization', 'Basic x']), 'authorization'),
      [],
    )
  })

  test('only blanks and tabs around an option of Connection are no part of its name', () => {
    const named = (option: string) =>
      valuesOf(toUpstream(['Connection', `close,${option}`, 'X-Trace', '7']), 'x-trace')
    assert.deepEqual([' x-trace', '\tx-trace \t'].map(named), [[], []])
    assert.deepEqual(['\xa0x-trace', 'x-trace\x85'].map(named), [['7'], ['7']])
  })

  test('what Connection names is removed from the client and never from us', () => {
    const raw = [
      'X-Secret',
      '1',
      'Connection',
      'close, Authorization, X-Forwarded-For, via',
      'X-Kept',
      '2',
      'connection',
      'X_SECRET , x-request-id',
    ]
    const fields = toUpstream(raw, { accessToken: 'at-1' })
    assert.deepEqual(valuesOf(fields, 'x-secret'), [])
    assert.deepEqual(valuesOf(fields, 'x-kept'), ['2'])
    assert.deepEqual(valuesOf(fields, 'authorization'), ['Bearer at-1'])
    assert.deepEqual(valuesOf(fields, 'x-forwarded-for'), ['203.0.113.7'])
    assert.deepEqual(valuesOf(fields, 'x-request-id'), ['r-1'])
    assert.deepEqual(valuesOf(fields, 'via'), ['1.1 cloakroom-69baddde'])
  })

  test('proxies before us, another Cloakroom too, stay in Via, and we come last', () => {
    const fields = toUpstream([
      'Via',
      '1.0 fred, 1.1 nginx (cloakroom)',
      'X-A',
      '1',
      'via',
      '2 cloakroom-12345678',
    ])
    const expected = ['1.0 fred, 1.1 nginx (cloakroom)', '2 cloakroom-12345678', '1.1 cloakroom-69baddde']
    assert.deepEqual(valuesOf(fields, 'via'), expected)
  })

  for (const via of [
    '1.1 cloakroom-69baddde',
    '1.1 nginx, 1.1 cloakroom-69baddde',
    '1.1  Cloakroom-69BADDDE (x), 1.1 nginx',
    'HTTP/1.1\tcloakroom-69baddde',
  ]) {
    test(`a request that has been here before is refused: ${JSON.stringify(via)}`, () => {
      assert.throws(() => toUpstream(['X-A', '1', 'vIA', via]), { code: 'upstream_unreachable' })
      assert.throws(() => toUpstream(['Connection', 'via', 'Via', via]), { code: 'upstream_unreachable' })
    })
  }

  const COOKIES: [sent: string, crosses: string | undefined][] = [
    ['__Host-Http-cloakroom=x', undefined],
    ['a=1; __Host-Http-cloakroom=x', 'a=1'],
    ['__Host-Http-cloakroom=x; b=2', 'b=2'],
    ['a=1;__Host-Http-cloakroom=x;  b="2 "', 'a=1;  b="2 "'],
    ['a=1; __Host-Http-cloakroom=x; __Host-Http-cloakroom-login-abc=y; b=2; c', 'a=1; b=2; c'],
    ['a=1; __HOST-http-Cloakroom=x', 'a=1'],
    ['a=1; b=2', 'a=1; b=2'],
    [';;=;a', ';;=;a'],
    ['a=__Host-Http-cloakroom; b=1', 'a=__Host-Http-cloakroom; b=1'],
    ['__Host-Http-cloakroom', undefined],
    ['__Host-Http-cloakroomX=1', '__Host-Http-cloakroomX=1'],
    ['__Host-Http-cloakroom =1; a=1', 'a=1'],
    ['', undefined],
  ]
  for (const [sent, crosses] of COOKIES) {
    test(`of the cookies ${JSON.stringify(sent)} there crosses ${JSON.stringify(crosses)}`, () => {
      assert.deepEqual(
        valuesOf(toUpstream(['Cookie', sent]), 'cookie'),
        crosses === undefined ? [] : [crosses],
      )
    })
  }

  test('several Cookie fields cross as one, without ours', () => {
    const raw = ['Cookie', 'a=1', 'X-Other', '1', 'cookie', '__Host-Http-cloakroom=x', 'COOKIE', 'b=2;c']
    assert.deepEqual(valuesOf(toUpstream(raw), 'cookie'), ['a=1; b=2;c'])
  })

  test('a name that is only longer, shorter or another crosses, whatever signs are in it', () => {
    const raw = ['X.Forwarded-', '1', 'X-Users.Id', '2', 'Prox', '3', 'Proxys', '4', "~!#$%&'*+-.^_`|", '5']
    const names = raw.filter((_, i) => i % 2 === 0)
    const fields = toUpstream(['Cook.ie', '0', 'Ho_st', '0', ...raw], {}, { headers })
    assert.deepEqual(
      names.filter((name) => !fields.includes(name)),
      ['X.Forwarded-'],
    )
    assert.ok(fields.includes('Cook.ie') && fields.includes('Ho_st'))
  })

  test('a field of a name that the route gives with odd signs is ours under the others', () => {
    const odd = [{ name: '~odd.name', value: 'ours' }]
    const fields = toUpstream(['-odd-name', 'no', '_ODD_NAME', 'no', '.odd+name', 'no'], {}, { headers: odd })
    assert.deepEqual(fields.slice(-2), ['~odd.name', 'ours'])
    assert.doesNotMatch(fields.join(), /\bno\b/)
  })

  const headers = [
    { name: 'X-User-Id', value: '{claims.sub}' },
    { name: 'x-names', value: 'n={claims.name}; r={claims.roles}' },
    { name: 'x-fixed', value: 'yes' },
  ]

  test('a route header is filled from claims and the client cannot send it in any spelling', () => {
    // Every sign that may stand in a name (RFC 9110 §5.6.2), since there are servers that make one of them all.
    const signs = [..."!#$%&'*+-.^_`|~"]
    const twins = signs.flatMap((sign) => [`X${sign}User-Id`, `x-user${sign}id`, `X${sign}USER${sign}ID`])
    const raw = ['x-user-id', 'X-Fixed', 'x.fixed', ...twins].flatMap((name) => [name, 'no'])
    const claims = { sub: 'u1', name: 'Ada', roles: ['r1', 'r2'] }
    const fields = toUpstream(raw, { claims }, { headers })
    assert.doesNotMatch(fields.join(), /\bno\b/)
    assert.deepEqual(fields.slice(-6), ['X-User-Id', 'u1', 'x-names', 'n=Ada; r=r1,r2', 'x-fixed', 'yes'])
    assert.equal(fields.filter((field) => /user.id/i.test(field)).length, 1)
  })

  test('a header whose claim is absent, or not text, is left out', () => {
    assert.deepEqual(valuesOf(toUpstream([], {}, { headers }), 'x-user-id'), [])
    assert.deepEqual(
      valuesOf(toUpstream([], { claims: { sub: 'u', name: { a: 1 }, roles: [] } }, { headers }), 'x-names'),
      [],
    )
    assert.deepEqual(valuesOf(toUpstream([], {}, { headers }), 'x-fixed'), ['yes'])
  })

  const CLAIMS: [claim: unknown, sent: string][] = [
    ['a\r\nX-Admin: 1', 'a%0D%0AX-Admin: 1'],
    ['caf\u00e9 \u{1f600}', 'caf%C3%A9 %F0%9F%98%80'],
    ['50%', '50%25'],
    ['\ud800', '%EF%BF%BD'],
    ['nul\0', 'nul%00'],
    [['a,admin', 'b'], 'a%2Cadmin,b'],
    [7, '7'],
    [true, 'true'],
  ]
  for (const [claim, sent] of CLAIMS) {
    test(`the claim ${JSON.stringify(claim)} is sent as ${sent}`, () => {
      const fields = toUpstream(
        [],
        { claims: { sub: 'u', it: claim } },
        { headers: [{ name: 'x-it', value: '{claims.it}' }] },
      )
      assert.deepEqual(valuesOf(fields, 'x-it'), [sent])
    })
  }

  test('a claim too long for a header is left out', () => {
    const claims = { sub: 'x'.repeat(64 * 1024) }
    assert.deepEqual(valuesOf(toUpstream([], { claims }, { headers }), 'x-user-id'), [])
  })
})
