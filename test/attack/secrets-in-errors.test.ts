import assert from 'node:assert/strict'
import { createServer, type Socket } from 'node:net'
import { describe, type TestContext, test } from 'node:test'
import { createRedisStore } from '../../src/store/redis/redis-store.ts'
import { callbackOf, setUp } from '../kit/attack/sign-in.ts'
import { captureLog } from '../kit/cloakroom.ts'
import { assertNoSecrets } from '../kit/secrets.ts'

const PASSWORD = 'a-very-secret-password'
const SESSION = 'session-text-that-must-stay-secret'

/** A server that answers every command with the same line, `%s` replaced by the command as it came. */
async function startRefusing(t: TestContext, line: string): Promise<string> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.on('data', (bytes) => {
      const words = bytes.toString().split('\r\n')
      const quoted = words.filter((word) => word !== '' && !/^[*$]\d+$/.test(word)).map((word) => `'${word}'`)
      const commands = words.filter((word) => /^\*\d+$/.test(word)).length
      for (let n = 0; n < commands; n += 1) socket.write(`${line.replace('%s', quoted.join(' '))}\r\n`)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return `redis://127.0.0.1:${(server.address() as { port: number }).port}`
}

describe('no secret comes out of Redis by way of an error that says', () => {
  for (const line of [
    "-ERR unknown command 'HELLO', with args beginning with: %s",
    '-ERR unknown command `HELLO`, with args beginning with: %s',
    '-NOPROTO unsupported protocol version',
    '-WRONGPASS invalid username-password pair or user is disabled.',
    '-NOAUTH Authentication required. %s',
    '-ERR Error running script: %s',
    '-MOVED 1 127.0.0.1:1',
    '-LOADING Redis is loading the dataset in memory',
    '-OOM command not allowed when used memory',
    '-READONLY You can not write against a read only replica.',
  ]) {
    test(line, async (t) => {
      const url = await startRefusing(t, line)
      const { log, lines } = captureLog()
      const store = await createRedisStore(
        { type: 'redis', url, keyPrefix: 'cloakroom', password: { reveal: () => PASSWORD } } as never,
        { idleTimeoutMs: () => 60_000 },
        { log },
      )
      t.after(() => store.close())
      const outcome = await store.sessions.create('hash' as never, SESSION).then(
        () => 'created',
        (error) => `${error.code} ${error.message} ${error.cause?.message} ${JSON.stringify(error)}`,
      )
      assert.match(outcome, /^store_unavailable /)
      assertNoSecrets({ log: lines.join('\n'), error: outcome }, [PASSWORD, SESSION])
    })
  }
})

describe('no secret comes out of the provider by way of', () => {
  const leaks: Record<string, (secret: string) => object> = {
    'an error description': (secret) => ({
      error: 'invalid_grant',
      error_description: `no such token ${secret}`,
    }),
    'an error code': (secret) => ({ error: `invalid ${secret}` }),
    'an error code that looks like one': (secret) => ({ error: secret }),
    'a sub-error': (secret) => ({ error: 'invalid_grant', suberror: `${secret} ` }),
    'a correlation id': (secret) => ({ error: 'invalid_request', correlation_id: `x ${secret}` }),
    'a member of a broken answer': (secret) => ({
      access_token: 7,
      token_type: 'Bearer',
      refresh_token: secret,
    }),
  }
  for (const [name, body] of Object.entries(leaks)) {
    test(name, async (t) => {
      const setup = await setUp(t, { provider: { control: { accessTokenSeconds: 60 } } })
      const { browser, cloakroom, provider } = setup
      await browser.signIn()
      const callback = await callbackOf(setup)
      const secrets = provider.issuedSecrets.filter((secret) => secret.startsWith('rt_'))
      const [secret = ''] = secrets
      provider.control.intercept = ({ path }, res) => {
        if (path !== '/token') return false
        res.writeHead('access_token' in body(secret) ? 200 : 400, { 'content-type': 'application/json' })
        res.end(JSON.stringify(body(secret)))
        return true
      }
      setup.advance(61_000)
      await browser.fetch('/api/orders')
      await browser.fetch(callback.pathname + callback.search)
      const haystacks = { ...browser.haystacks(), log: cloakroom.logs.join('\n') }
      assertNoSecrets(haystacks, secrets, { allowJwt: true })
    })
  }
})
