import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { declarationsOf, typesCommand } from '../../../src/cli/config/types.ts'
import { BASE, changed, load } from '../../kit/config/base-config.ts'
import { compile } from '../../kit/house/compile.ts'

/** Runs with an empty environment: no secret is there. */
async function run(args: string[], stdin = '') {
  const written = { out: '', err: '' }
  const code = await typesCommand(args, {
    stdout: { write: (text) => (written.out += text) },
    stderr: { write: (text) => (written.err += text) },
    env: {},
    readStdin: () => stdin,
  })
  return { code, ...written }
}

/** What might end a literal, a line or a comment, or be read in another order than it is written. */
const ODD = [
  ...[
    "it's",
    '"',
    '\\',
    '\\"',
    "\\'",
    '`$' + '{x}`',
    '*/ evil',
    '// x',
    '</script>',
    '__proto__',
    'constructor',
  ],
  ...[
    'x\nexport type Claims = never',
    'a\r\nb',
    'a\u2028b',
    'a\u2029b',
    '\u202Eabc',
    '\u0000',
    '\u{1F600}',
    '\uD800',
  ],
  ...[
    'Größe',
    '部門',
    'https://app.example.com/roles',
    'a b',
    '1',
    '-',
    'readonly',
    'new',
    '{ x: 1 }',
    'a?: b',
  ],
]

/** More than the schema lets through: names are written safely by themselves. */
function declarationsOfOddNames(): string {
  const { config } = load(BASE)
  const [route, resource] = [config.routes[0]!, config.resources.orders!]
  return declarationsOf({
    ...config,
    resources: Object.fromEntries(ODD.map((name) => [name, resource])),
    routes: ODD.map((name) => ({
      ...{ ...route, id: name, path: name, resource: name },
      require: { claims: [{ name, values: ['x'] }] },
      headers: [{ name: 'x-a', value: `{claims.${name}}` }],
    })),
  })
}

const USE = (file: string) => `
import { createCloakroom, type Snapshot } from '../../../src/client/client.ts'
import type { Claims, ResourceName, RouteId, Routes } from '${file}'
export const cloakroom = createCloakroom<Claims>()
export const snapshot: Snapshot<Claims> = cloakroom.getSnapshot()
export const sub: string | undefined = snapshot.user?.sub
cloakroom.on('signed-in', ({ user }) => user?.sub.trim())
// @ts-expect-error: no claim has this name
export const typo = snapshot.user?.subb
`

describe('cloakroom types', () => {
  test('prints declarations that compile under strict with the helper, whatever the names are', async () => {
    const usual = changed(
      'headers: { x-user-id: "{claims.sub}" }',
      'headers: { x-user-id: "{claims.sub}", x-team: "{claims.team} {claims.org.unit}" }\n    require: { claims: { groups: [ops], realm_access.roles: [staff], "https://x.example/r": [a] } }',
    )
    const plain = await run(['--config', '-'], usual)
    assert.deepEqual([plain.code, plain.err], [0, ''])
    const odd = declarationsOfOddNames()
    assert.doesNotMatch(odd, /[^\n\P{C}]|\p{Zl}|\p{Zp}/u)
    const errors = await compile({
      'plain.d.ts': plain.out,
      'uses-plain.ts': `${USE('./plain.d.ts')}
export const group: string | number | boolean | readonly unknown[] | undefined = snapshot.user?.groups
export const role = snapshot.user?.realm_access?.roles ?? snapshot.user?.['realm_access.roles']
export const others = [snapshot.user?.team, snapshot.user?.org?.unit, snapshot.user?.['https://x.example/r']]
export const name: string | undefined = snapshot.user?.name
// @ts-expect-error: the scope email is not asked for
export const email = snapshot.user?.email
export const id: RouteId = 'orders'
// @ts-expect-error: no route has this id
export const noId: RouteId = 'order'
export const path: Routes['orders']['path'] = '/api/orders'
export const resource: ResourceName = 'billing'
`,
      'odd.d.ts': odd,
      'uses-odd.ts': `${USE('./odd.d.ts')}
export const all = [${ODD.map((name) => `snapshot.user?.[${JSON.stringify(name)}]`).join(', ')}]
export const names: ResourceName[] = ${JSON.stringify(ODD)}
export const ids: RouteId[] = ${JSON.stringify(ODD)}
export const first: Routes["it's"]['resource'] = "it's"
`,
    })
    assert.equal(errors, '')
  })

  test('prints the same for the same routes in another order', async () => {
    const [head, first, second] = BASE.split(/^(?= {2}- path: \/api)/m) as [string, string, string]
    const [billing, rest] = second.split(/^(?= {2}- path: \/\n)/m) as [string, string]
    const { out } = await run(['-'], head + billing + first + rest)
    assert.equal(out, (await run(['-'], BASE)).out)
    assert.match(
      out,
      /readonly spa: \{ readonly path: "\/"; readonly resource: undefined; readonly auth: "anonymous" \}/,
    )
  })

  test('prints nothing but the problems of a file that is wrong, and exits with 78', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'cloakroom-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const file = join(folder, 'wrong.yaml')
    writeFileSync(file, changed('basePath: /bff', 'basePath: bff'))
    const { code, out, err } = await run(['--config', file])
    assert.deepEqual([code, out], [78, ''])
    assert.match(err, /wrong\.yaml:6:11 {2}basePath: /)
    assert.equal((await run(['--config', join(folder, 'none.yaml')])).code, 78)
  })

  for (const args of [['x'], ['-', '-'], ['--config', 'x', '-'], ['--json']]) {
    test(`refuses ${args.join(' ')} with its usage`, async () => {
      const { code, out, err } = await run(args)
      assert.deepEqual([code, out], [1, ''])
      assert.match(err, /usage: cloakroom types/)
    })
  }

  test('prints its usage for --help', async () => {
    const { code, out } = await run(['--help'])
    assert.equal(code, 0)
    assert.match(out, /^usage: cloakroom types/)
  })
})
