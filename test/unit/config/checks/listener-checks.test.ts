import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { BASE, changed, load, problemsOf } from '../../../kit/config/base-config.ts'

/** BASE with these listeners, public URL and the upstream of its last route. */
function withUpstream(
  upstream: string,
  {
    listen = '0.0.0.0:8080',
    admin = '127.0.0.1:9090',
    publicUrl = 'https://app.example.com',
    more = '',
  }: { listen?: string; admin?: string; publicUrl?: string; more?: string } = {},
): string {
  return BASE.replace('http://spa', upstream)
    .replace('listen: 127.0.0.1:8080', `listen: "${listen}"`)
    .replace('listen: 127.0.0.1:9090', `listen: "${admin}"`)
    .replace('publicUrl: https://app.example.com', `publicUrl: ${publicUrl}${more}`)
    .replace(/cookie: .*\n/, publicUrl.startsWith('http:') ? 'cookie: {}\n' : '$&')
}

const OWN = 'routes[2].upstream'

describe('an upstream that is a listener of Cloakroom itself', () => {
  const rows: [upstream: string, listen: string][] = [
    ['http://localhost:8080', '0.0.0.0:8080'],
    ['http://LOCALHOST.:8080', '0.0.0.0:8080'],
    ['http://spa.localhost:8080', '0.0.0.0:8080'],
    ['http://127.0.0.1:8080', '0.0.0.0:8080'],
    ['http://127.1:8080', '0.0.0.0:8080'],
    ['http://0x7f000001:8080', '0.0.0.0:8080'],
    ['http://127.0.0.9:8080', '0.0.0.0:8080'],
    ['http://[::1]:8080', '[::]:8080'],
    ['http://127.0.0.1:8080', '[::]:8080'],
    ['http://[::ffff:127.0.0.1]:8080', '127.0.0.1:8080'],
    ['http://0.0.0.0:8080', '127.0.0.1:8080'],
    ['http://[::]:8080', '[::1]:8080'],
    ['http://localhost:8080', '127.0.0.1:8080'],
    ['http://127.0.0.1:8080', 'localhost:8080'],
    ['https://localhost:8080', '0.0.0.0:8080'],
    ['http://localhost', '0.0.0.0:80'],
    ['https://localhost', '0.0.0.0:443'],
    ['http://10.1.2.3:8080', '10.1.2.3:8080'],
    ['http://web-1:8080', 'web-1:8080'],
    ['http://[2001:DB8:0::7]:8080', '[2001:db8::7]:8080'],
  ]
  for (const [upstream, listen] of rows) {
    test(`is warned about: ${upstream} behind listen ${listen}`, () => {
      const { warnings } = load(withUpstream(upstream, { listen, admin: '127.0.0.1:19090' }))
      assert.deepEqual(
        warnings.map(({ path, line }) => [path, line]),
        [[OWN, 46]],
      )
      const { message } = warnings[0]!
      assert.match(message, /^leads to Cloakroom's own public listener.*where the application listens$/)
      assert.ok(message.includes(`listen: ${listen}`), message)
    })
  }

  test('is refused where it is the admin listener, whose pages are not for browsers', () => {
    const [problem] = problemsOf(withUpstream('http://localhost:9090'))
    assert.equal(problem?.path, OWN)
    assert.match(problem!.message, /own admin listener.*\(admin\.listen: 127\.0\.0\.1:9090\)/)
  })

  test('is warned about where it is publicUrl or one of `hosts`, which may lead elsewhere from here', () => {
    const warned = (text: string) =>
      load(text).warnings.map(({ path, message }): [string, string] => [path, message])
    for (const upstream of [
      'https://app.example.com',
      'http://app.example.com',
      'https://APP.example.com:443',
    ]) {
      assert.deepEqual(
        warned(withUpstream(upstream))[0]?.[0],
        upstream.startsWith('http:') ? OWN : OWN,
        upstream,
      )
    }
    assert.match(warned(withUpstream('https://app.example.com'))[0]![1], /^is publicUrl/)
    const more = '\nhosts: ["app.shop.svc:8080", "app.shop"]'
    assert.deepEqual(
      warned(withUpstream('http://app.shop.svc:8080', { more })).map(([path]) => path),
      [OWN],
    )
    assert.deepEqual(
      warned(withUpstream('http://app.shop', { more })).map(([path]) => path),
      [OWN],
    )
    const local = withUpstream('http://localhost:3000', { publicUrl: 'http://localhost:3000' })
    assert.deepEqual(
      warned(local).map(([path]) => path),
      [OWN],
    )
  })

  test('is no other server: another port, address or name is accepted without a word', () => {
    const accepted: [upstream: string, listen: string][] = [
      ['http://localhost:3000', '0.0.0.0:8080'],
      ['http://orders:8080', '0.0.0.0:8080'],
      ['http://10.1.2.3:8080', '0.0.0.0:8080'],
      ['http://127.0.0.2:8080', '127.0.0.1:8080'],
      ['http://[::1]:8080', '127.0.0.1:8080'],
      ['http://localhost:8080', '10.1.2.3:8080'],
      ['http://localhost.example.com:8080', '0.0.0.0:8080'],
      ['http://localhost', '0.0.0.0:0'],
    ]
    for (const [upstream, listen] of accepted) {
      assert.deepEqual(load(withUpstream(upstream, { listen })).warnings, [], `${upstream} ${listen}`)
    }
  })
})

describe('the two listeners', () => {
  test('are refused on one socket, however it is spelt', () => {
    for (const [listen, admin] of [
      ['127.0.0.1:8080', '127.0.0.1:8080'],
      ['localhost:8080', '127.0.0.1:8080'],
      ['[::1]:8080', 'LOCALHOST:8080'],
      ['0.0.0.0:8080', '10.1.2.3:8080'],
      ['10.1.2.3:8080', '[::]:8080'],
      ['[0:0::1]:8080', '[::1]:8080'],
    ] as const) {
      const paths = problemsOf(withUpstream('http://spa', { listen, admin })).map(({ path }) => path)
      assert.deepEqual(paths, ['admin.listen'], `${listen} ${admin}`)
    }
  })

  test('are told at the one that is written', () => {
    const text = withUpstream('http://spa', { listen: '0.0.0.0:9090' }).replace(/admin:\n.*\n/, '')
    const [problem, ...more] = problemsOf(text)
    assert.deepEqual([more, problem?.path, problem?.line], [[], 'listen', 2])
    assert.match(problem!.message, /^must not be the admin listener's port 9090/)
  })

  test('may share a port on two addresses, and let the system choose both ports', () => {
    load(withUpstream('http://spa', { listen: '10.1.2.3:8080', admin: '127.0.0.1:8080' }))
    load(withUpstream('http://spa', { listen: '127.0.0.1:0', admin: '127.0.0.1:0' }))
    assert.ok(changed('listen: 127.0.0.1:8080', 'listen: 127.0.0.1:8081'))
  })
})
