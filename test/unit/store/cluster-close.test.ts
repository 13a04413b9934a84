import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openCluster } from '../../../src/store/redis/connection/cluster.ts'

test('a command for a slot that no node has is refused once the store is closed, and holds nothing up', async () => {
  const silent = { info() {}, warn() {}, error() {} }
  let refreshes = 0
  const topology = {
    ...{ attempted: Promise.resolve(), primaries: () => [], ownerOf: () => undefined },
    ...{ outage: () => undefined, moved() {}, askFirst() {}, onChange() {}, close() {} },
    // As after `close`: nothing is asked, and the answer is there at once.
    async refresh() {
      refreshes += 1
    },
    nextNode: async () => ({ host: '127.0.0.1', port: 1 }),
  }
  const cluster = openCluster({ topology, credentials: {}, name: 'command', log: silent })
  await cluster.close(0)
  // The deadline of a command is a timer, which never fires in a process that is busy with this loop.
  const wait = {
    get isOver() {
      return refreshes > 10
    },
  }
  const request = { label: 'readSession', key: 'a', isRepeatable: true, send: async () => undefined }
  await assert.rejects(cluster.send(request, wait), { code: 'ENOTCONN' })
  assert.equal(refreshes, 0)
})
