// What a program in JavaScript does with Ollama's own package: `node scenarios.mjs HOST SCENARIO`, JSON on stdout.
import { Ollama } from 'ollama'

const [host, scenario] = process.argv.slice(2)
const ollama = new Ollama({ host })
const model = 'smollm2:135m'
const messages = [{ role: 'user', content: 'What is the capital of France?' }]
const options = { temperature: 0, num_predict: 24, seed: 1 }

const scenarios = {
  async chat() {
    const whole = await ollama.chat({ model, messages, options })
    let text = ''
    let last
    for await (const part of await ollama.chat({ model, messages, options, stream: true })) {
      text += part.message.content
      last = part
    }
    return { whole, text, last }
  },

  async generate() {
    const whole = await ollama.generate({ model, prompt: messages[0].content, options })
    let text = ''
    for await (const part of await ollama.generate({ model, prompt: messages[0].content, options, stream: true })) {
      text += part.response
    }
    return { whole, text }
  },

  async embed() {
    return await ollama.embed({ model: 'all-minilm', input: ['a cat', 'a kitten'] })
  },

  async models() {
    await ollama.generate({ model, prompt: '', keep_alive: '5m' })
    const [list, show, version] = [await ollama.list(), await ollama.show({ model }), await ollama.version()]
    await new Promise((done) => setTimeout(done, 1500)) // the engine tells what it holds each second
    return { list, show, version, ps: await ollama.ps() }
  },

  async format() {
    const format = {
      type: 'object',
      properties: { capital: { type: 'string', maxLength: 20 }, inhabitants: { type: 'integer', maximum: 99999999 } },
      required: ['capital', 'inhabitants'],
    }
    const answer = await ollama.chat({ model, messages, format, options: { ...options, num_predict: 60 } })
    return JSON.parse(answer.message.content)
  },

  async abort() {
    const long = [{ role: 'user', content: 'Tell me a very long story.' }]
    const stream = await ollama.chat({ model, messages: long, options: { num_predict: 4000 }, stream: true })
    let parts = 0
    try {
      for await (const _ of stream) {
        parts += 1
        if (parts === 3) ollama.abort()
      }
    } catch (error) {
      return { parts, error: error.name }
    }
    return { parts, error: null }
  },

  async errors() {
    const caught = []
    for (const ask of [() => ollama.chat({ model: 'nix', messages }), () => ollama.embed({ model, input: 'x' })]) {
      try {
        await ask()
      } catch (error) {
        caught.push({ status: error.status_code, error: error.error })
      }
    }
    return caught
  },

  async pull() {
    let last
    for await (const part of await ollama.pull({ model, stream: true })) last = part
    return last
  },

  async stop() {
    return await ollama.generate({ model: 'all-minilm', prompt: '', keep_alive: 0 })
  },
}

console.log(JSON.stringify(await scenarios[scenario]()))
