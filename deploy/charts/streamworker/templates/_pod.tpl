{{/* The pod, for all that has one. */}}

{{/*
A pod template, metadata and spec: (dict "root" $ "settings" worker "component" "worker" "worker" name "track" "stable"
"container" "worker" "image" image "args" (list …) "configMap" name "config" table), and where they are wanted "annotations",
"ports", "probes", "volumes", "volumeMounts", "grace", "restartPolicy" and "serviceAccount".
*/}}
{{- define "streamworker.podTemplate" -}}
{{- $values := .root.Values -}}
{{- $settings := .settings -}}
{{- $tls := ternary $values.kafka.tls.existingSecret "" $values.kafka.tls.enabled -}}
{{- $sasl := ternary $values.kafka.sasl.existingSecret "" (ne $values.kafka.sasl.mechanism "") -}}
{{- $annotations := dict "checksum/config" (include "streamworker.tomlFile" .config | sha256sum) -}}
{{- with $values.kafka.secretRevision }}{{- $_ := set $annotations "streamworker.dev/secret-revision" . -}}{{- end -}}
metadata:
  labels:
    {{- merge (include "streamworker.selector" . | fromJson) ($settings.podLabels | default dict) $values.commonLabels | toYaml | nindent 4 }}
  annotations:
    {{- merge $annotations (.annotations | default dict) ($settings.podAnnotations | default dict) $values.commonAnnotations | toYaml | nindent 4 }}
spec:
  serviceAccountName: {{ .serviceAccount | default (include "streamworker.serviceAccountName" .root) }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  {{- with .grace }}
  terminationGracePeriodSeconds: {{ . }}
  {{- end }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $settings.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- $spread := dict "labelSelector" (dict "matchLabels" (include "streamworker.selector" (omit $ "track") | fromJson)) }}
    {{- range . }}
    - {{- merge (deepCopy .) $spread | toYaml | nindent 6 }}
    {{- end }}
  {{- end }}
  {{- with $settings.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .container }}
      image: {{ .image | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      args:
        {{- range .args }}
        - {{ . | quote }}
        {{- end }}
      env:
        - name: PYTHONUNBUFFERED
          value: "1"
        {{- /* As many arenas of malloc as threads would keep memory that nothing uses. */}}
        - name: MALLOC_ARENA_MAX
          value: "2"
        {{- if and (eq .component "worker") (eq $settings.kind "StatefulSet") }}
        - name: STREAMWORKER__KAFKA__LIBRDKAFKA__GROUP_INSTANCE_ID
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        {{- end }}
        {{- with $settings.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $settings.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .ports }}
      ports:
        {{- range $name, $port := . }}
        - name: {{ $name }}
          containerPort: {{ $port }}
          protocol: TCP
        {{- end }}
      {{- end }}
      {{- with .probes }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      {{- with $settings.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $settings.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: config
          mountPath: /etc/streamworker
          readOnly: true
        - name: tmp
          mountPath: /tmp
        {{- if $tls }}
        - name: kafka-tls
          mountPath: /run/secrets/kafka-tls
          readOnly: true
        {{- end }}
        {{- if $sasl }}
        - name: kafka-sasl
          mountPath: /run/secrets/kafka-sasl
          readOnly: true
        {{- end }}
        {{- with .volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with $settings.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $settings.sidecars }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ .configMap }}
    - name: tmp
      emptyDir:
        {{- toYaml ($settings.tmp | default dict) | nindent 8 }}
    {{- if $tls }}
    - name: kafka-tls
      secret:
        secretName: {{ $tls }}
        defaultMode: 0440
    {{- end }}
    {{- if $sasl }}
    - name: kafka-sasl
      secret:
        secretName: {{ $sasl }}
        defaultMode: 0440
    {{- end }}
    {{- with .volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $settings.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* The probes of whatever serves /health, as JSON. */}}
{{- define "streamworker.probes" -}}
{{- $probes := dict -}}
{{- range $name, $path := dict "startup" "/health/startup" "liveness" "/health/live" "readiness" "/health/ready" -}}
{{- $probe := merge (dict "httpGet" (dict "path" $path "port" "http")) (get $.probes $name) -}}
{{- $_ := set $probes (printf "%sProbe" $name) $probe -}}
{{- end -}}
{{- toJson $probes -}}
{{- end -}}

{{/* The pod of a worker or of its canary: (dict "root" $ "name" "orders" "track" "stable"). */}}
{{- define "streamworker.workerPod" -}}
{{- $worker := include "streamworker.worker" . | fromJson -}}
{{- $canary := eq .track "canary" -}}
{{- $config := include "streamworker.workerConfig" . | fromJson -}}
{{- $args := concat (list "run") $worker.handlers (list "--config" "/etc/streamworker/streamworker.toml") -}}
{{- if gt (int $worker.processes) 1 }}{{- $args = concat $args (list "--processes" (int $worker.processes | toString)) -}}{{- end -}}
{{- $images := list .root.Values.image $worker.image -}}
{{- if $canary }}{{- $images = append $images $worker.canary.image -}}{{- end -}}
{{- include "streamworker.podTemplate" (dict
    "root" .root
    "settings" $worker
    "component" "worker"
    "worker" .name
    "track" .track
    "container" "worker"
    "image" (include "streamworker.image" (dict "root" .root "images" $images))
    "args" (concat $args $worker.extraArgs)
    "configMap" (printf "%s%s" (include "streamworker.workerName" .) (ternary "-canary" "" $canary))
    "config" $config
    "annotations" (dict "streamworker.dev/group" $worker.group)
    "ports" (dict "http" (include "streamworker.httpPort" .root | int))
    "probes" (include "streamworker.probes" (dict "probes" $worker.probes) | fromJson)
    "grace" (default (include "streamworker.neededGrace" $config | int) $worker.terminationGracePeriodSeconds)
  ) -}}
{{- end -}}
