// The loop with the official TypeScript client: client.mjs DIR legacy|auto COMMAND ARGS...
// over stdio, or client.mjs DIR legacy|auto URL TOKEN over HTTP, which is the older
// HTTP+SSE where the URL ends in /sse. DIR is where files are sent from. It fails by its exit
// code. The client validates each structured content against the tool's schema.
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const require = createRequire(process.env.GPULEASE_HOSTS + '/')
const { Client, SSEClientTransport, StreamableHTTPClientTransport } = require('@modelcontextprotocol/client')
const { StdioClientTransport } = require('@modelcontextprotocol/client/stdio')

const [dir, mode, target, ...rest] = process.argv.slice(2)
const HTTPTransport = target.endsWith('/sse') ? SSEClientTransport : StreamableHTTPClientTransport
const transport = target.startsWith('http')
  ? new HTTPTransport(new URL(target), { requestInit: { headers: { Authorization: `Bearer ${rest[0]}` } } })
  : new StdioClientTransport({ command: target, args: rest, env: process.env, stderr: 'inherit' })
const client = new Client({ name: 'ts', version: '1' }, { versionNegotiation: { mode } })
await client.connect(transport)
console.log(`revision ${client.getNegotiatedProtocolVersion?.()}`)

const { tools } = await client.listTools()
assert.ok(tools.some(t => t.name === 'launch_lease'))
let notes = 0
async function call(name, args, options) {
  const r = await client.callTool({ name, arguments: args }, options)
  if (!r.isError) assert.ok(r.structuredContent.next, `${name} says what follows`)
  return r
}
async function ok(name, args, options) {
  const r = await call(name, args, options)
  assert.ok(!r.isError, JSON.stringify(r))
  return r.structuredContent
}

const offers = (await ok('list_capacity', {})).offers
const type = offers.find(o => o.allowed && o.gpus === 1 && o.regions.length).instance_type
const quote = await ok('launch_lease', { type, ttl_minutes: 8, dry_run: true })
assert.equal(quote.decision, 'allow')
const refused = await call('launch_lease', { type, ttl_minutes: 6000 })
assert.match(refused.content[0].text, /^error policy_denied: /)
assert.equal(refused.isError, true)
const misspelt = await call('launch_lease', { type, ttl_minute: 8 })
assert.match(misspelt.content[0].text, /^error invalid_input: [^]*ttl_minutes/)

let lease = await ok('launch_lease', { type, ttl_minutes: 8 })
const lease_id = lease.lease_id
for (let i = 0; i < 8 && lease.state !== 'ready'; i++)
  lease = await ok('get_lease', { lease_id, wait_seconds: 20 }, { onprogress: () => notes++, resetTimeoutOnProgress: true })
assert.equal(lease.state, 'ready')
const run = await ok('run_command', { lease_id, command: 'for i in 1 2 3; do echo $i; sleep 1; done; exit 3' }, { onprogress: () => notes++ })
assert.deepEqual([run.exit_code, run.stdout], [3, '1\n2\n3\n'])

mkdirSync(join(dir, 'src'), { recursive: true })
writeFileSync(join(dir, 'src', 'input'), '7\n')
const sent = await ok('sync_files', { lease_id, local_dir: join(dir, 'src') })
assert.deepEqual([sent.complete, sent.files_sent], [true, 1])
assert.equal((await ok('run_command', { lease_id, cwd: 'src', command: 'cat input input > answer' })).exit_code, 0)
const fetched = await ok('fetch_files', { lease_id, paths: ['src/answer'] })
assert.equal(readFileSync(join(fetched.local_dir, 'src', 'answer'), 'utf8'), '7\n7\n')

// A call that is given up ends, and the next one works.
const abort = new AbortController()
setTimeout(() => abort.abort('enough'), 1000)
await assert.rejects(client.callTool({ name: 'run_command', arguments: { lease_id, command: 'sleep 30' } }, { signal: abort.signal }))

for (let i = 0; i < 6 && lease.state !== 'ended'; i++) lease = await ok('stop_lease', { lease_id })
assert.equal(lease.state, 'ended')
assert.equal(lease.confirmed, true)
assert.ok(lease.cost_usd > 0)
assert.ok(notes > 0, 'progress was told')
await client.close()
console.log(`progress notes ${notes}`)
